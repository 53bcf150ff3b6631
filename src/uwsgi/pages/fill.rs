//! A response on its way from the application to its client: what the route keeps of it.
#![forbid(unsafe_code)]

use std::{
    ffi::c_void,
    ptr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    answer,
    asked::{Asked, Client, HIDDEN, same_site},
    chunk::{Bytes, Chunk},
    control::{Refusal, Times, judge},
    fields::{Head, values},
    request::{Request, Sent},
    settings::{Settings, Tags},
    store::{Lease, Response, Target},
    tally,
};
use crate::{
    capi::host::cache::Cache,
    os::clock,
    wire::page::{Kept, Page, decode},
};

/// From this length on, bytes, a body's memory is taken over instead of copied.
const LARGE: usize = 64 << 10;

/// What is done with a response.
#[derive(Debug)]
enum State {
    /// Its headers were not seen yet.
    Waiting,
    /// It is kept, to be stored when it is whole.
    Keeping { head: Head, times: Times, length: Option<usize> },
    /// It is stored; the client may still wait for parts of it.
    Stored,
    /// It goes to the client only.
    Passing,
    /// The client gets an old page instead.
    Replaced,
    /// It may have changed the page, which goes unless it is an error.
    Changing,
}

/// A response that the route watches. Belongs to one request.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) settings: Arc<Settings>,
    pub(super) cache: &'static Cache,
    pub(super) target: Target,
    /// Why the response is not stored, whatever it is.
    pub(super) refused: Option<Refusal>,
    /// The tags, if they come from the request.
    pub(super) tags: Option<Vec<u8>>,
    /// Exceptions of the core before.
    pub(super) exceptions: u64,
    pub(super) started: Instant,
    /// The client has its answer already: the response is for the cache alone.
    pub(super) behind: Option<Sent>,
    /// The word for `X-Cache` and the log.
    pub(super) label: &'static str,
    state: State,
    body: Bytes,
    /// Bytes of the body that were passed on.
    sent: usize,
    /// Whether the client was told how its answer was made.
    said: bool,
    /// Keys of other pages that the request changes.
    changes: Vec<Vec<u8>>,
    /// Whether they were looked for, while the headers were there.
    changed: bool,
    /// Whether the application was asked if the old page is still good.
    asks: bool,
}

impl Fill {
    pub(super) fn new(
        request: &Request,
        settings: &Arc<Settings>,
        cache: &'static Cache,
        target: Target,
        label: &'static str,
    ) -> Self {
        let tags = match &settings.tags {
            Some(Tags::Template(template)) => request.translate(template),
            _ => None,
        };
        Self {
            settings: Arc::clone(settings),
            cache,
            target,
            refused: request.holds(&settings.nostore).then_some(Refusal::Condition),
            tags,
            exceptions: request.exceptions(),
            started: Instant::now(),
            behind: None,
            label,
            state: State::Waiting,
            body: Bytes::new(),
            sent: 0,
            said: false,
            changes: Vec::new(),
            changed: false,
            asks: false,
        }
    }

    /// For a request that may change the page.
    pub(super) fn changing(
        request: &Request,
        settings: &Arc<Settings>,
        cache: &'static Cache,
        target: Target,
    ) -> Self {
        Self { state: State::Changing, ..Self::new(request, settings, cache, target, "BYPASS") }
    }

    /// A part of the body, before it goes to the client.
    pub(super) fn each(&mut self, request: &Request, chunk: &mut Chunk<'_>) {
        if matches!(self.state, State::Waiting)
            && let Some(old) = self.first(request)
        {
            chunk.set(&old);
            return;
        }
        if matches!(self.state, State::Changing) && !self.changed {
            self.change(request);
        }
        if let State::Keeping { length, .. } = &self.state {
            let (length, part) = (*length, chunk.bytes().len());
            if (self.body.len() + part) as u64 > self.settings.max_size {
                self.refuse(request, Refusal::Size);
            } else if !self.keep(chunk) {
                self.refuse(request, Refusal::Lost);
            } else {
                // All that was announced: nobody need wait for the client.
                if length == Some(self.body.len()) {
                    self.store(request);
                }
                return self.pass_on(request, chunk, part);
            }
        }
        match self.state {
            State::Replaced => _ = chunk.set(b""),
            _ if self.behind.is_some() => _ = chunk.set(b""),
            _ if self.sent == self.body.len() => {}
            // What was held back goes first. Without memory the answer is cut: the client sees that
            // by its length, or by the missing end.
            _ if self.body.extend(chunk.bytes()) => _ = chunk.set(&self.body[self.sent..]),
            _ => _ = chunk.set(&self.body[self.sent..]),
        }
        // It is not stored: what was kept of it is of no use any more.
        (self.body, self.sent) = (Bytes::new(), 0);
    }

    /// Keeps a part of the body, a large first one in the memory where it is; `false` = no memory,
    /// and the part is still in hand.
    fn keep(&mut self, chunk: &mut Chunk<'_>) -> bool {
        if self.body.is_empty() && chunk.bytes().len() >= LARGE {
            return chunk.take().map(|taken| self.body = taken).is_some();
        }
        self.body.extend(chunk.bytes())
    }

    /// The end of the response. `chunk` is what the client gets at last.
    pub(super) fn end(&mut self, request: &Request, chunk: &mut Chunk<'_>) {
        if matches!(self.state, State::Waiting)
            && let Some(old) = self.first(request)
        {
            chunk.set(&old);
        }
        if let State::Keeping { length, .. } = &self.state {
            let whole = length.is_none_or(|length| length == self.body.len());
            if request.is_sent_otherwise() {
                self.refuse(request, Refusal::Unseen);
            } else if !whole || request.failed_to_write() || request.exceptions() != self.exceptions {
                self.refuse(request, Refusal::Partial);
            } else {
                self.store(request);
            }
        }
        if matches!(self.state, State::Changing) {
            // Again: the application may have changed more since its first byte.
            self.change(request);
        }
        match &self.behind {
            Some(sent) => {
                chunk.set(b"");
                request.restore(sent);
            }
            None if self.sent < self.body.len() => {
                // Without a copy, unless other transformations follow.
                if !request.send_last(self.own(), &self.body[self.sent..]) {
                    chunk.set(&self.body[self.sent..]);
                }
                self.sent = self.body.len();
            }
            None => {}
        }
    }

    /// Removes the page, and those of this site that the response says that it changed, if it is no
    /// error (RFC 9111, 4.4). Before the client has the answer: it may ask for the page then.
    fn change(&mut self, request: &Request) {
        if !std::mem::replace(&mut self.changed, true)
            && self.settings.key.is_none()
            && let Some(head) = request.headers().and_then(Head::parse)
        {
            let named = ["location", "content-location"].into_iter().filter_map(|name| head.get(name));
            self.changes = named.filter_map(|target| same_site(&self.target.place.key, target)).collect();
        }
        if (200..400).contains(&request.status()) {
            for key in self.changes.iter().chain([&self.target.place.key]) {
                // A page that is missing is as good.
                let _ = self.cache.remove(key, 0);
            }
        }
    }

    /// Asks for the whole page, whatever the client has; or whether the old one is still good, if
    /// the application has named it.
    pub(super) fn ask(&mut self, request: &Request) {
        HIDDEN.iter().for_each(|name| request.hide(name));
        let Some(page) = self.old() else { return };
        let fields = Head::stored(page.head).unwrap_or_default();
        let tag = values(&fields, "etag").next().filter(|_| !page.made_tag);
        let date = values(&fields, "last-modified").next();
        let tagged = tag.is_some_and(|tag| request.add_var("HTTP_IF_NONE_MATCH", tag));
        let dated = date.is_some_and(|date| request.add_var("HTTP_IF_MODIFIED_SINCE", date));
        self.asks = tagged || dated;
    }

    /// The old page, if it is one for this request.
    fn old(&self) -> Option<Page<'_>> {
        match decode(self.target.old.as_deref().filter(|_| self.target.usable)?) {
            Some(Kept::Page(page)) => Some(page),
            _ => None,
        }
    }

    /// The application says that the old page is still good: it is stored with what the answer says
    /// of it (RFC 9111, 4.3.4). Returns the body for the client.
    fn confirm(&mut self, request: &Request, answer: &Head) -> Option<Vec<u8>> {
        let page = self.old()?;
        let body = if page.gzip { answer::unpacked(page.body)? } else { page.body.to_vec() };
        let mut head = Head { status: page.status, reason: page.reason.to_vec(), fields: Vec::new() };
        head.fields = Head::stored(page.head)?;
        if page.made_tag {
            head.fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"etag"));
        }
        let now = SystemTime::now();
        head.update(answer, now);
        let with_cookie = request.header(b"cookie").is_some();
        let judged = match self.refused {
            Some(why) => Err(why),
            None => judge(&head, &self.settings, with_cookie, now),
        };
        if self.behind.is_none() {
            let own = self.own();
            let mut fields = head.fields.clone();
            fields.push((b"Content-Length".to_vec(), body.len().to_string().into_bytes()));
            let status = [head.status.to_string().as_bytes(), b" ", &head.reason].concat();
            if !request.begin(&status, &fields, own) {
                return None;
            }
        }
        match judged {
            Ok(times) => {
                self.state = State::Keeping { head, times, length: None };
                self.say(request, self.label);
                if self.body.extend(&body) {
                    self.store(request);
                }
                self.body = Bytes::new();
            }
            Err(why) => self.refuse_as(request, why, head.status),
        }
        self.state = State::Replaced;
        Some(if self.behind.is_some() { Vec::new() } else { body })
    }

    /// The data of the transformations that this is.
    fn own(&self) -> *const c_void {
        ptr::from_ref(self).cast()
    }

    /// Looks at the headers and decides. Returns the body of an old page that the client gets
    /// instead.
    fn first(&mut self, request: &Request) -> Option<Vec<u8>> {
        let failed = request.exceptions() != self.exceptions;
        let Some(head) = request.headers().and_then(Head::parse) else {
            if !failed {
                let unseen = request.is_sent_otherwise();
                self.refuse(request, if unseen { Refusal::Unseen } else { Refusal::Form });
                return None;
            }
            // uWSGI closes the connection without an answer.
            let body = self.replace(request);
            if body.is_none() {
                self.refuse(request, Refusal::Failed);
            }
            return body;
        };
        // After an exception before the first byte the rest will not come.
        if (failed || head.status >= 500)
            && let Some(body) = self.replace(request)
        {
            return Some(body);
        }
        if head.status == 304
            && self.asks
            && let Some(body) = self.confirm(request, &head)
        {
            return Some(body);
        }
        let status = head.status;
        let with_cookie = request.header(b"cookie").is_some();
        let length = head.get("content-length").map(|l| std::str::from_utf8(l).ok()?.trim().parse().ok());
        let most = self.settings.max_size.min(self.cache.tier.max_value());
        let judged = match (self.refused, length) {
            (Some(why), _) => Err(why),
            (None, Some(None)) => Err(Refusal::Form),
            (None, Some(Some(length))) if length as u64 > most => Err(Refusal::Size),
            (None, _) => judge(&head, &self.settings, with_cookie, SystemTime::now()),
        };
        match judged {
            Ok(times) => {
                self.state = State::Keeping { head, times, length: length.flatten() };
                self.say(request, self.label);
            }
            Err(why) => self.refuse_as(request, why, status),
        }
        None
    }

    /// Answers with the old page, if there is one for this case.
    fn replace(&mut self, request: &Request) -> Option<Vec<u8>> {
        let page = self.old()?;
        let now = clock::unix_millis();
        if now >= page.error || self.behind.is_some() {
            return None;
        }
        let own = self.own();
        // The application was asked with the page's own validators: they are not the client's.
        let client = Client { request, plain: request.is_changed_behind(own) };
        let answer = answer::answer(&page, &client, now)?;
        if !request.begin(&answer.status, &answer.fields, own) {
            return None;
        }
        let body = answer.body.into_owned();
        self.target.refuse(&self.cache.tier, Refusal::Failed, 500);
        self.state = State::Replaced;
        tally::replaced(self.cache, body.len());
        self.say(request, "STALE");
        Some(body)
    }

    fn store(&mut self, request: &Request) {
        let State::Keeping { head, times, .. } = std::mem::replace(&mut self.state, State::Stored) else {
            return;
        };
        let tags = match (&self.tags, &self.settings.tags) {
            (Some(tags), _) => tags.clone(),
            (None, Some(Tags::Header(name))) => head.all(name).collect::<Vec<_>>().join(&b' '),
            _ => Vec::new(),
        };
        let tags: Vec<u8> = tags.iter().map(|&byte| if byte == b',' { b' ' } else { byte }).collect();
        let cost = self.started.elapsed();
        let mut response = Response { head: &head, body: &mut self.body, times, cost, tags: &tags };
        let refreshes = matches!(self.target.lease, Lease::Refresh(_)) && self.target.usable;
        match self.target.store(&self.cache.tier, &self.settings, request, &mut response) {
            Ok(()) if refreshes => tally::refreshed(self.cache),
            Ok(()) => {}
            Err(why) => self.refuse_as(request, why, head.status),
        }
    }

    fn refuse(&mut self, request: &Request, why: Refusal) {
        self.refuse_as(request, why, request.status());
    }

    fn refuse_as(&mut self, request: &Request, why: Refusal, status: u16) {
        self.state = State::Passing;
        self.target.refuse(&self.cache.tier, why, status);
        tally::refused(self.cache, why);
        if self.behind.is_none() {
            self.say(request, self.label);
            request.log(&format!("{}:{}", self.label, why.name()));
        }
    }

    /// Tells the client (before its headers are sent) and the log.
    fn say(&mut self, request: &Request, label: &str) {
        if self.behind.is_some() || std::mem::replace(&mut self.said, true) {
            return;
        }
        request.log(label);
        if self.settings.x_cache && request.headers().is_some() {
            request.add_header(b"X-Cache", label.as_bytes());
        }
    }

    /// Passes on as much of what is kept as the client takes at once: the application need not wait
    /// for it.
    fn pass_on(&mut self, request: &Request, chunk: &mut Chunk<'_>, part: usize) {
        if self.behind.is_some() {
            chunk.set(b"");
            return;
        }
        let ready = (self.body.len() - self.sent).min(request.room());
        let end = self.sent + ready;
        // The part may have been taken.
        if ready != part || end != self.body.len() || chunk.bytes().len() != part {
            chunk.set(&self.body[self.sent..end]);
        }
        self.sent = end;
    }

    /// Ends a response that was never finished: its request is over.
    pub(super) fn abandon(mut self) {
        self.target.refuse(&self.cache.tier, Refusal::Partial, 0);
    }
}

//! The owner of copies whose values are in a cluster: a connection to each primary, each in a thread
//! of its own, so that none waits for another.
//!
//! A term is of one map of slots. When the map changes, a new term begins: the copies of the old one
//! are removed before a node of the new one is heard. A node whose connection is lost keeps its
//! place: its beat ages, and its copies only are out of use until it is back.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    beat::Rounds,
    cluster::{Cluster, Node},
    config::Settings,
    link::{Heard, Link, Place},
    owner::{Candidate, End, RETRY, clear, clear_if_set_back, flush, forget},
    resp::Reply,
    wall::Wall,
};
use crate::{
    engine::{Engine, MOST_NODES, OwnerLock},
    error::BackendFault,
    os::{clock::coarse_millis, worker},
};

/// How often the owner looks after its threads.
const STEP: Duration = Duration::from_millis(20);
/// How often it asks for the map.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two such questions, when something has shown that the map has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the threads of a term share.
struct Term {
    engine: Arc<Engine>,
    settings: Settings,
    number: u16,
    max_stale: u64,
    /// How many nodes are heard.
    nodes: usize,
    is_over: AtomicBool,
    /// Another owner has begun a term.
    is_succeeded: AtomicBool,
    /// Held while the beat of all nodes is computed and raised; where lines for the log wait.
    said: Mutex<Vec<Said>>,
}

/// What a thread has to say.
enum Said {
    Up(String),
    Down(String, BackendFault),
}

/// Ends the threads of a term.
struct Ending(Arc<Term>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
    }
}

impl Candidate {
    /// One term with a cluster.
    pub(super) fn keep_nodes(
        &mut self,
        cluster: &Cluster,
        number: u16,
        lock: &mut Option<OwnerLock>,
    ) -> Result<(), End> {
        let map = cluster.fetch(&self.settings, Instant::now() + self.settings.timeout)?;
        self.engine.note_untracked(false);
        let followed = map.probes(&self.settings.prefix);
        let numbers: Vec<_> = followed.iter().map(|(node, _)| node.number).take(MOST_NODES).collect();
        let old = self.engine.node_links();
        if !self.engine.begin_nodes(number, map.digest(), &numbers) {
            return Err(End::Succeeded);
        }
        if followed.len() > MOST_NODES {
            self.say(&format!("{} primaries: reads ask all but {MOST_NODES} of them", followed.len()));
        }
        let term = Arc::new(Term {
            engine: Arc::clone(&self.engine),
            settings: self.settings.clone(),
            number,
            max_stale: self.max_stale,
            nodes: followed.len(),
            is_over: AtomicBool::new(false),
            is_succeeded: AtomicBool::new(false),
            said: Mutex::default(),
        });
        let _ending = Ending(Arc::clone(&term));
        for (at, (node, probe)) in followed.into_iter().take(MOST_NODES).enumerate() {
            let before = old.iter().find(|(number, _)| *number == node.number).map(|&(_, link)| link);
            let mut follower = Follower { term: Arc::clone(&term), node, probe, at, before };
            let started = worker::spawn("ucache-node", move || follower.run());
            started.map_err(|error| BackendFault::Unavailable { reply: format!("no thread: {error}") })?;
        }
        self.watch(cluster, &term, map.digest(), lock)
    }

    /// Looks after the threads of a term, and asks for the map again and again.
    fn watch(
        &mut self,
        cluster: &Cluster,
        term: &Term,
        digest: u64,
        lock: &mut Option<OwnerLock>,
    ) -> Result<(), End> {
        let mut looked = Instant::now();
        loop {
            if !self.is_used() {
                return Ok(());
            }
            self.engine.note_owner(coarse_millis());
            if term.is_succeeded.load(Relaxed) || self.engine.beat().term() != term.number {
                return Err(End::Succeeded);
            }
            if lock.is_none() {
                // The owner that was stopped may have given it back.
                *lock = self.engine.try_own().ok().flatten();
            }
            for said in term.take_said() {
                match said {
                    Said::Up(node) => self.say_node_up(&node),
                    Said::Down(node, fault) => {
                        self.engine.note_untracked(matches!(fault, BackendFault::Refused { .. }));
                        self.say_node_down(&node, &fault);
                    }
                }
            }
            let since = looked.elapsed();
            if since >= LOOK || since >= LOOK_AGAIN && self.engine.take_doubt() {
                looked = Instant::now();
                // While no node answers, nothing has moved as far as anybody knows.
                let map = cluster.fetch(&self.settings, looked + self.settings.timeout);
                if map.is_ok_and(|map| map.digest() != digest) {
                    return Err(End::Moved);
                }
            }
            thread::sleep(STEP);
        }
    }
}

impl Term {
    fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    fn say(&self, said: Said) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }

    fn take_said(&self) -> Vec<Said> {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Raises the beat of a node, and that of all nodes to the oldest of theirs.
    fn raise(&self, at: usize, time: u64) -> Result<(), End> {
        if !self.engine.raise_node_beat(at, self.number, time) {
            return Err(End::Succeeded);
        }
        // One thread at a time: a beat that was computed earlier must not replace a later one.
        let _one = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut oldest = Some(u64::MAX);
        for at in 0..self.nodes {
            let beat = (at < MOST_NODES).then(|| self.engine.node_beat(at).time()).flatten();
            oldest = oldest.zip(beat).map(|(oldest, beat)| oldest.min(beat));
        }
        match oldest {
            Some(oldest) if !self.engine.raise_beat(self.number, oldest) => Err(End::Succeeded),
            _ => Ok(()),
        }
    }
}

/// A thread that hears one node.
struct Follower {
    term: Arc<Term>,
    node: Arc<Node>,
    /// A key in a slot that it serves.
    probe: Vec<u8>,
    /// Where its words are in the region.
    at: usize,
    /// The connection of an earlier owner, which may be stopped.
    before: Option<Place>,
}

impl Follower {
    fn run(&mut self) {
        self.term.engine.count_in_background();
        let address = self.node.address.to_string();
        while !self.term.is_over() {
            match self.follow() {
                Ok(()) => return,
                Err(End::Succeeded | End::Moved) => return self.term.is_succeeded.store(true, Relaxed),
                Err(End::Fault(fault)) => {
                    // Another node may have its slots.
                    self.term.engine.note_doubt();
                    self.term.say(Said::Down(address.clone(), fault));
                }
            }
            thread::sleep(RETRY);
        }
    }

    /// One connection: voids what was kept before, and applies what the node tells.
    fn follow(&mut self) -> Result<(), End> {
        let (engine, max_stale) = (&self.term.engine, self.term.max_stale);
        let patience = self.term.settings.timeout.max(Duration::from_millis(max_stale));
        let (mut link, place, asked) =
            Link::open_node(&self.term.settings, &self.node, &self.probe, patience)?;
        if self.term.is_over() {
            return Ok(());
        }
        // Before the clear: whoever makes a placeholder after it sees this connection.
        engine.note_node_link(self.at, place);
        if let Some(old) = self.before.replace(place) {
            link.end_other(old, self.term.settings.timeout);
        }
        // What was asked of this node before it was told to tell is void. That the copies of the
        // other nodes go, too, costs a read each, and happens when a node was lost only.
        let mut wall = Wall::look();
        clear(engine)?;
        let mut rounds = Rounds::new((max_stale / 10).max(20), asked);
        let mut is_said = false;
        while !self.term.is_over() {
            let now = coarse_millis();
            if rounds.is_due(now) {
                rounds.ask(now);
                link.ask()?;
            }
            let heard = link.hear(Duration::from_millis(rounds.patience(now)), rounds.is_waiting())?;
            if apply(engine, &heard)?
                && let Some(time) = rounds.answered()
            {
                clear_if_set_back(engine, &mut wall)?;
                self.term.raise(self.at, time)?;
                if !std::mem::replace(&mut is_said, true) {
                    self.term.say(Said::Up(self.node.address.to_string()));
                }
            }
        }
        Ok(())
    }
}

/// Applies what a node has told; whether it was the answer to the question.
fn apply(engine: &Engine, heard: &Heard) -> Reply<bool> {
    match heard {
        Heard::Changed(keys) => keys.iter().try_for_each(|key| forget(engine, key))?,
        // Keys of clusters have no numbers: whatever it is, it is not less.
        Heard::Everything | Heard::Cleared => flush(engine)?,
        Heard::Primary => return Ok(true),
        Heard::Nothing => {}
    }
    Ok(false)
}

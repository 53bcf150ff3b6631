//! The arithmetic of the beat: a time before which every change at the server has been applied
//! here.
//!
//! The owner asks the server a question again and again, never two at once. The server queues its
//! messages of a change at the end of the loop that executed it, and so perhaps behind the answer
//! to a question that ran in the same loop. But the next question runs in a later loop: when *its*
//! answer has been read, the messages of every change before the *earlier* question was sent have
//! been read, too.

/// The rounds of question and answer on one connection. Times are milliseconds since boot.
#[derive(Debug)]
pub(super) struct Rounds {
    /// Time between two questions.
    pause: u64,
    /// When the question that was answered last was sent.
    before: u64,
    /// When the one was sent whose answer is awaited.
    asked: Option<u64>,
    /// When the next one is due.
    next: u64,
}

impl Rounds {
    /// The first question, sent at `asked`, has been answered.
    pub(super) fn new(pause: u64, asked: u64) -> Self {
        // The second one follows at once: it makes the first beat.
        Self { pause, before: asked, asked: None, next: asked }
    }

    /// Whether to ask now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.asked.is_none() && now >= self.next
    }

    /// Whether an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// A question is about to be sent.
    pub(super) fn ask(&mut self, now: u64) {
        self.asked = Some(now);
        self.next = now + self.pause;
    }

    /// An answer has been read, and all messages before it applied: the beat. `None` = nothing was
    /// asked.
    pub(super) fn answered(&mut self) -> Option<u64> {
        let asked = self.asked.take()?;
        Some(std::mem::replace(&mut self.before, asked))
    }

    /// How long to wait for the server before there is something else to do.
    pub(super) fn patience(&self, now: u64) -> u64 {
        if self.asked.is_some() { self.pause } else { self.next.saturating_sub(now).clamp(1, self.pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_proves_what_came_before_the_question_before() {
        let mut rounds = Rounds::new(100, 1000);
        assert!(rounds.is_due(1000), "the second question follows at once");
        rounds.ask(1003);
        assert!(!rounds.is_due(5000), "never two at once");
        assert_eq!(rounds.answered(), Some(1000));
        assert!(!rounds.is_due(1102) && rounds.is_due(1103));
        rounds.ask(1110);
        assert_eq!(rounds.answered(), Some(1003));
        assert_eq!(rounds.answered(), None, "an answer to nothing");
        rounds.ask(1300);
        assert_eq!(rounds.answered(), Some(1110), "whenever the answer is read");
    }

    #[test]
    fn waits_end_in_time() {
        let mut rounds = Rounds::new(100, 1000);
        assert_eq!(rounds.patience(1000), 1);
        rounds.ask(1000);
        assert_eq!(rounds.patience(1050), 100);
        rounds.answered();
        assert_eq!(rounds.patience(1050), 50);
        assert_eq!(rounds.patience(9000), 1);
    }

    /// A server's loops: in each, changes and at most one question are executed in any order; the
    /// messages of the changes are sent behind the answer. Whatever is executed when, a beat is
    /// never later than a change whose message has not been read.
    #[test]
    fn no_beat_is_later_than_a_change_that_was_not_read() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut rounds = Rounds::new(1, 0);
            let (mut now, mut unread) = (0, Vec::new());
            let mut stream = std::collections::VecDeque::new();
            for _ in 0..random.usize(1..12) {
                // The time passes while the question is on its way, too.
                now += random.u64(1..4);
                let asks = rounds.is_due(now) && random.bool();
                if asks {
                    rounds.ask(now);
                }
                let mut changes = Vec::new();
                for _ in 0..random.usize(0..3) {
                    now += random.u64(0..3);
                    changes.push(now);
                    unread.push(now);
                }
                if asks {
                    stream.push_back(None);
                }
                stream.extend(changes.into_iter().map(Some));
                for _ in 0..random.usize(0..=stream.len()) {
                    match stream.pop_front().expect("it has one") {
                        Some(change) => unread.retain(|&other| other != change),
                        None => {
                            let beat = rounds.answered().expect("it was asked");
                            assert!(unread.iter().all(|&change| change >= beat), "{beat}: {unread:?}");
                        }
                    }
                }
            }
        }
    }
}

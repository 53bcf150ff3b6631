//! A list that only grows, for data that belongs to a cache for the life of the process.
use std::sync::OnceLock;

/// Readers never wait, even in a child forked while another thread pushed.
#[derive(Debug)]
pub(super) struct AppendList<T> {
    head: OnceLock<Box<Node<T>>>,
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    next: AppendList<T>,
}

impl<T> AppendList<T> {
    pub(super) const fn new() -> Self {
        Self { head: OnceLock::new() }
    }

    /// Appends a value.
    pub(super) fn push(&self, value: T) {
        let mut node = Box::new(Node { value, next: Self::new() });
        let mut at = self;
        while let Err(back) = at.head.set(node) {
            node = back;
            match at.head.get() {
                Some(taken) => at = &taken.next,
                // `set` only fails if a node is there.
                None => return,
            }
        }
    }

    /// The values, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::successors(self.head.get(), |node| node.next.head.get()).map(|node| &node.value)
    }
}

#[cfg(test)]
mod tests {
    use super::AppendList;

    #[test]
    fn pushes_of_many_threads_all_arrive() {
        let list = AppendList::new();
        std::thread::scope(|s| {
            for t in 0..4 {
                let list = &list;
                s.spawn(move || (0..100).for_each(|i| list.push(t * 100 + i)));
            }
        });
        let mut all: Vec<_> = list.iter().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
    }
}

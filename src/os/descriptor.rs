//! Numbers of descriptors.
#![forbid(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Gives a descriptor another number than those of the standard streams, which a program may have
/// closed: whatever it prints would go into the file or socket.
pub(super) fn above_standard<T: Into<OwnedFd> + From<OwnedFd> + AsRawFd>(file: T) -> io::Result<T> {
    if file.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(file);
    }
    // The number of a copy is 3 or more.
    file.into().try_clone().map(T::from)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn other_numbers_stay() {
        let file = File::open("/dev/null").expect("there is one");
        let number = file.as_raw_fd();
        assert_eq!(above_standard(file).expect("a file").as_raw_fd(), number);
    }
}

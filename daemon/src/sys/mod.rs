//! The only unsafe code: system calls for which no safe wrapper exists.

pub(crate) mod netns;

//! Benchmarks of obol, as ratios against a limit measured in the same run.

pub mod heap;
pub mod machine;

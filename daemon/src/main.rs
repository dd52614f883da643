//! obol.
fn main() {}

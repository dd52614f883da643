//! The host that obol runs on: its addresses, routes, rules, packet filter and namespaces.

pub mod links;
pub mod netns;

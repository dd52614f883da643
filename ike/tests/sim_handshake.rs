//! IKE_SA_INIT and IKE_AUTH between two endpoints over a simulated network.

use obol_ike::event::Event;
use obol_ike::testing::setup::Setup;

#[test]
fn a_shared_secret_brings_up_a_child() {
    let pair = Setup::started(1).up(1);
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.count(|e| matches!(e, Event::IkeUp { .. })), 1);
        assert_eq!(node.count(|e| matches!(e, Event::ChildUp(_))), 1);
    }
    assert_eq!(pair.net.sent.len(), 4, "two exchanges and nothing else");
}

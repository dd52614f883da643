//! One conn that takes the place of what its name meant, or joins others.

use super::*;

/// Each child with its peer, its networks, and whether it is narrower than others; in order.
fn described(loaded: &Loaded) -> Vec<String> {
    let mut all: Vec<String> = loaded
        .policies
        .iter()
        .map(|policy| {
            let mut connections = loaded.ike.connections.iter();
            let connection = connections.find(|known| known.name == policy.connection);
            let connection = connection.unwrap();
            let mut children = connection.children.iter();
            let child = children.find(|child| child.name == policy.child).unwrap();
            assert_eq!(child.remote_ts, policy.remote_ts);
            let peer = connection.remote_addrs[0];
            let action = child.start_action;
            let narrower = policy.narrower;
            let net = policy.remote_ts[0];
            format!(
                "{} {peer} {net} {action:?} narrower={narrower}",
                policy.child
            )
        })
        .collect();
    let count: usize = loaded
        .ike
        .connections
        .iter()
        .map(|c| c.children.len())
        .sum();
    assert_eq!(all.len(), count);
    assert_eq!(loaded.data_planes.len(), loaded.ike.connections.len());
    all.sort();
    all
}

/// Puts what the connection `name` is by now in the place of what it was.
async fn put(loaded: &mut Loaded, conf: &str, name: &str) -> Result<(), Misfit> {
    let written = Written::new(&[("ipsec.conf", conf), ("obol.toml", "")]);
    let (files, own) = paths(&written);
    let heard = heard(&files, Some(name)).await;
    let occasion = Occasion::Heard(&loaded.pluto, &heard);
    let Single::Conn(mut one) = load_single(&files, &own, name, occasion).await.unwrap() else {
        panic!("{name} is none");
    };
    assert!(loaded.single_out(&mut one, name));
    loaded.put(*one, name).map(|_| ())
}

fn with_net(name: &str, peer: u8, net: &str, more: &str) -> String {
    let lines = format!(" leftsubnet=10.1.0.0/16\n rightsubnet={net}\n auto=start{more}");
    conn(name, peer, &lines)
}

#[tokio::test]
async fn a_connection_takes_the_place_of_what_its_name_meant_and_others_stay() {
    let b = with_net("b", 1, "10.4.0.0/16", "");
    let c = with_net("c", 2, "10.5.0.0/16", "");
    let others = format!("{b}{c}");
    // By now the others say something else, which counts when somebody asks for them.
    let edited = others
        .replace("auto=start", "auto=add")
        .replace("10.5.", "10.55.");
    let a = with_net("a", 1, "10.3.0.0/16", "");
    for new in [
        a.clone(),
        with_net("a", 1, "10.33.0.0/16", ""),
        with_net("a", 1, "10.3.0.0/16", "\n esp=aes128-sha2"),
        // It has a peer of its own now, or that of another one.
        with_net("a", 3, "10.3.0.0/16", ""),
        with_net("a", 2, "10.3.0.0/16", ""),
        // It is about some of another one's packets, or about more than those.
        with_net("a", 3, "10.5.1.0/24", ""),
        with_net("a", 3, "10.0.0.0/8", ""),
    ] {
        let mut running = loaded(&format!("{a}{others}")).await;
        put(&mut running, &format!("{new}{edited}"), "a")
            .await
            .unwrap();
        let expected = loaded(&format!("{new}{others}")).await;
        assert_eq!(described(&running), described(&expected), "{new}");
        let names = running.pluto.names.keys().collect::<Vec<_>>();
        assert_eq!(names, expected.pluto.names.keys().collect::<Vec<_>>());
        // Once more, and nothing is another one.
        let before = (running.ike.connections.clone(), running.policies.clone());
        put(&mut running, &format!("{new}{edited}"), "a")
            .await
            .unwrap();
        assert_eq!(
            (running.ike.connections.clone(), running.policies.clone()),
            before,
            "{new}"
        );
    }
    let mut same = loaded(&format!("{a}{others}")).await;
    let before = (same.ike.connections.clone(), same.policies.clone());
    put(&mut same, &format!("{a}{edited}"), "a").await.unwrap();
    assert_eq!(
        (same.ike.connections.clone(), same.policies.clone()),
        before
    );
}

#[tokio::test]
async fn a_connection_that_does_not_fit_changes_nothing() {
    let a = with_net("a", 1, "10.3.0.0/16", "");
    let b = with_net("b", 1, "10.4.0.0/16", "");
    let c = with_net("c", 2, "10.5.0.0/16", "");
    let text = format!("{a}{b}{c}");
    for (new, clashes) in [
        (with_net("a", 3, "10.5.0.0/16", ""), true),
        (with_net("a", 1, "10.4.0.0/16", ""), true),
        // The IKE SA with its peer would be another one for `b` as well.
        (with_net("a", 1, "10.3.0.0/16", "\n ikelifetime=2h"), false),
        (
            with_net("a", 1, "10.3.0.0/16", "\n failureshunt=passthrough"),
            false,
        ),
    ] {
        let mut running = loaded(&text).await;
        let before = (
            running.ike.connections.clone(),
            running.policies.clone(),
            running.pluto.names.clone(),
        );
        let misfit = put(&mut running, &format!("{new}{b}{c}"), "a")
            .await
            .unwrap_err();
        assert_eq!(
            matches!(misfit, Misfit::Clash(_)),
            clashes,
            "{new}: {misfit:?}"
        );
        let after = (
            running.ike.connections.clone(),
            running.policies.clone(),
            running.pluto.names.clone(),
        );
        assert_eq!(after, before, "{new}");
    }
}

#[tokio::test]
async fn a_connection_joins_those_with_the_same_peer() {
    let text = format!(
        "{}{}",
        with_net("a", 1, "10.3.0.0/16", ""),
        with_net("c", 2, "10.5.0.0/16", "")
    );
    for (more, joins) in [
        (with_net("more", 1, "10.6.0.0/16", ""), true),
        (
            with_net("more", 1, "10.6.0.0/16", "\n ikelifetime=2h"),
            false,
        ),
        (with_net("more", 1, "10.5.1.0/24", ""), false),
        (with_net("more", 3, "10.6.0.0/16", ""), false),
    ] {
        let mut running = loaded(&text).await;
        let conf = format!("{text}{more}");
        let written = Written::new(&[("ipsec.conf", &conf), ("obol.toml", "")]);
        let (files, own) = paths(&written);
        let heard = heard(&files, Some("more")).await;
        let occasion = Occasion::Heard(&running.pluto, &heard);
        let Single::Conn(mut one) = load_single(&files, &own, "more", occasion).await.unwrap()
        else {
            panic!("it is none");
        };
        assert!(running.single_out(&mut one, "more"));
        let home = running.joined_by(&one, "more");
        assert_eq!(home.is_some(), joins, "{more}");
        let Some(home) = home else { continue };
        let called = running.ike.connections[home].name.clone();
        one.rename(&called);
        let joined = running.join(*one, home);
        assert_eq!(joined.children.len(), 2);
        let expected = loaded(&conf).await;
        assert_eq!(running.ike.connections, expected.ike.connections);
        assert_eq!(described(&running), described(&expected));
        assert_eq!(running.pluto.names, expected.pluto.names);
    }
}

//! Files that are read again while a daemon runs from them.

use super::*;

fn protected(loaded: &Loaded) -> Vec<String> {
    let policies = loaded.policies.iter();
    let text = policies.map(|policy| format!("{:?} {:?}", policy.local_ts, policy.remote_ts));
    text.collect()
}

#[tokio::test]
async fn what_cannot_be_had_any_more_stays_as_it_was() {
    let nets = " leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=start";
    let good = conn("good", 1, nets);
    let other = conn(
        "other",
        2,
        " leftsubnet=10.1.0.0/16\n rightsubnet=10.4.0.0/16\n auto=start",
    );
    for (bad, why) in [
        (good.replace("auto=start", "auto=start\n esp=aess"), "aess"),
        (good.replace("auto=start", "auto=star"), "auto=star"),
        (
            good.replace(" right=198.18.77.1\n", ""),
            "right= is not set",
        ),
        (
            good.replace("198.18.77.1", "nowhere.invalid"),
            "nowhere.invalid has no address now",
        ),
        (
            good.replace("127.0.0.1", "nowhere.invalid"),
            "neither left=nowhere.invalid",
        ),
        (
            good.replace("127.0.0.1", "%nodevice"),
            "neither left=%nodevice",
        ),
        (good.replace("10.3.", "10.4."), "conn other is in its way: "),
        (
            good.replace(
                " rightrsasigkey=",
                " rightrsasigkey=%none\n rightrsasigkey=",
            ),
            "there is no rightrsasigkey",
        ),
        (
            good.replace(" leftrsasigkey=", " leftrsasigkey=%none\n leftrsasigkey="),
            "neither leftrsasigkey nor leftckaid",
        ),
    ] {
        let mut run = Run::begin(&format!("{good}{other}")).await;
        let before = (
            run.loaded.ike.connections.clone(),
            run.loaded.policies.clone(),
        );
        assert_eq!(children(&run.loaded), ["good/good", "other/other"]);
        run.write(&format!("{other}{bad}"));
        // Nobody asked: it is not even looked at.
        run.again(true).await;
        assert_eq!(
            (&run.loaded.ike.connections, &run.loaded.policies),
            (&before.0, &before.1),
            "{bad}"
        );
        assert!(run.loaded.pluto.why_kept("good").is_none());
        for _ in 0..2 {
            run.again(false).await;
            assert_eq!(
                (&run.loaded.ike.connections, &run.loaded.policies),
                (&before.0, &before.1),
                "{bad}"
            );
            let said = warnings(&run.loaded);
            assert!(said.contains("good stays as it was: "), "{bad}: {said}");
            assert!(said.contains(why), "{bad}: {said}");
            assert!(run.loaded.pluto.why_kept("good").is_some());
        }
        // Mended, it is as ever; taken out, it is gone.
        run.write(&format!("{other}{good}"));
        run.again(false).await;
        assert_eq!(run.loaded.policies, before.1);
        assert!(run.loaded.pluto.why_kept("good").is_none());
        assert_eq!(warnings(&run.loaded), "");
        run.write(&other);
        run.again(true).await;
        assert_eq!(children(&run.loaded), ["good/good", "other/other"]);
        run.again(false).await;
        assert_eq!(children(&run.loaded), ["other/other"]);
    }
}

#[tokio::test]
async fn what_another_host_is_to_have_by_the_files_goes() {
    let good = conn("good", 1, " auto=start");
    let mut run = Run::begin(&good).await;
    run.write(&good.replace("127.0.0.1", "198.18.78.1"));
    run.again(false).await;
    assert_eq!(children(&run.loaded), [""; 0]);
    assert!(run.loaded.pluto.why_not("good").is_some());
}

#[tokio::test]
async fn what_is_new_does_not_count_before_somebody_asks() {
    let good = conn("good", 1, " auto=start");
    let mut run = Run::begin(&good).await;
    let hole = "conn hole\n type=passthrough\n left=127.0.0.1\n right=%any\n leftsubnet=127.0.0.1/32\n rightsubnet=198.18.77.1/32/tcp/22\n authby=never\n auto=route\n";
    run.write(&format!("{hole}{good}"));
    run.again(true).await;
    assert_eq!(children(&run.loaded), ["good/good"]);
    run.again(false).await;
    assert_eq!(run.loaded.policies.len(), 2, "{}", warnings(&run.loaded));
}

#[tokio::test]
async fn packets_to_a_peer_without_address_are_dropped_until_it_has_one() {
    let nets = " leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=start";
    let text = conn("good", 1, nets);
    let nowhere = text.replace("198.18.77.1", "nowhere.invalid");
    let expected = protected(&loaded(&text).await);
    let mut run = Run::begin(&nowhere).await;
    for _ in 0..2 {
        assert_eq!(protected(&run.loaded), expected);
        assert_eq!(children(&run.loaded), ["[drop]/good"]);
        assert!(run.loaded.ike.connections.is_empty());
        let not = run.loaded.pluto.why_not("good").unwrap();
        assert_eq!(not.kind, Absence::Unresolved);
        assert!(run.loaded.pluto.look_up_again().is_some());
        run.again(false).await;
    }
    // A half-written file does not take that away either.
    run.write(&nowhere.replace("auto=start", "auto=star"));
    run.again(false).await;
    assert_eq!(protected(&run.loaded), expected);
    // It has one, whatever the files say by now.
    let address = "198.18.77.1".parse().unwrap();
    run.loaded
        .pluto
        .learn(vec![("nowhere.invalid".into(), vec![address])]);
    run.again(true).await;
    assert_eq!(children(&run.loaded), ["good/good"]);
    assert_eq!(protected(&run.loaded), expected);
    assert_eq!(run.loaded.ike.connections[0].remote_addrs, [address]);
    assert!(run.loaded.pluto.why_not("good").is_none());
    assert!(run.loaded.pluto.look_up_again().is_none());
    // It cannot be looked up any more: what was heard last counts.
    run.write(&nowhere);
    for is_event in [true, false] {
        run.again(is_event).await;
        assert_eq!(children(&run.loaded), ["good/good"]);
        assert_eq!(run.loaded.ike.connections[0].remote_addrs, [address]);
    }
}

#[tokio::test]
async fn with_listen_all_addresses_are_known_all_the_same() {
    let text = format!(
        "config setup\n listen=127.0.0.1\n{}",
        conn("good", 1, " auto=start")
    );
    let run = Run::begin(&text).await;
    let all = addresses().await.unwrap();
    let known = &run.loaded.pluto.addresses;
    assert!(all.iter().all(|address| known.contains(address)));
}

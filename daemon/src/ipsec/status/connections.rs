//! What is configured, with how it goes: `ipsec connectionstatus`.

use std::fmt::Arguments;

use super::words::{
    client, esp_algorithms, hashes, id_type, ike_algorithms, key_exchange, local_id, remote_id,
    signatures,
};
use super::{View, child_number, ike_number};
use crate::control::protocol::{
    Absence, ChildReport, ChildSaReport, ConnectionReport, NotLoaded, PolicyState, WrittenEnd,
};
use crate::ipsec::out::{Out, Style};

impl View {
    /// Connections of this name, or all; how many.
    pub(in crate::ipsec) fn print_connections(
        &self,
        out: &Out,
        name: Option<&str>,
        brief: bool,
    ) -> usize {
        let mut count = 0;
        for (connection, child) in self.find(name) {
            count += 1;
            self.print_connection(out, connection, child, brief);
        }
        for (own, not) in self.absent() {
            if name.is_none_or(|name| name == own) {
                count += 1;
                print_absent(out, own, not, brief);
            }
        }
        count
    }

    fn print_connection(
        &self,
        out: &Out,
        connection: &ConnectionReport,
        child: &ChildReport,
        brief: bool,
    ) {
        let name = &child.name;
        let up = self.up(&connection.name, name);
        let newest = up.first();
        let ips = match out.style {
            Style::Five => "; my_ip=unset; their_ip=unset;",
            Style::Four => "",
        };
        out.write(
            "000",
            format_args!(
                "\"{name}\": {}...{}; {}{ips}",
                local_end(connection, child),
                remote_end(connection, child),
                routing(out.style, child.state, newest.map(|(_, sa)| *sa))
            ),
        );
        if brief {
            return;
        }
        let more = |text: Arguments<'_>| out.write("000", format_args!("\"{name}\":   {text}"));
        let one = |list: &[String]| list.first().map_or("%any", String::as_str).to_owned();
        if out.style == Style::Four {
            more(format_args!("  oriented; my_ip=unset; their_ip=unset;"));
            let (ike, sa) = newest.map_or((0, 0), |(ike, sa)| (ike_number(ike), child_number(sa)));
            more(format_args!(
                "newest IKE SA: #{ike}; newest IPsec SA: #{sa};"
            ));
        }
        let mut host = format!(
            "host: oriented; local: {}; remote: {};",
            one(&connection.local_addrs),
            one(&connection.remote_addrs)
        );
        if let Some((ike, _)) = newest {
            host += &format!(" established IKE SA: #{};", ike_number(ike));
        }
        more(format_args!("{host}"));
        let both = [&connection.local, &connection.remote].map(signatures);
        let [own, peer] = both.each_ref().map(|words| match words.as_slice() {
            [] => "secret".to_owned(),
            words => words.join("+"),
        });
        let own = match both[0].first() {
            None => own,
            Some(first) => format!("{}({own})", first.to_lowercase()),
        };
        more(format_args!(
            "our auth:{own}, their auth:{peer}, our autheap:none, their autheap:none;"
        ));
        more(format_args!("sec_label:unset;"));
        more(format_args!("{}", lives(out.style, connection, child)));
        let initial_contact = if connection.initial_contact {
            "yes"
        } else {
            "no"
        };
        more(format_args!(
            "initial-contact:{initial_contact}; cisco-unity:no; fake-strongswan:no; send-vendorid:no; send-no-esp-tfc:no;"
        ));
        more(format_args!("policy: {};", policy(connection, child)));
        if connection.local.auth != "psk" {
            more(format_args!(
                "v2-auth-hash-policy: {};",
                hashes(&connection.local).join("+")
            ));
        }
        let (ours, theirs) = (local_id(connection), remote_id(connection));
        more(format_args!(
            "our idtype: {}; our id={ours}; their idtype: {}; their id={theirs}",
            id_type(&ours),
            id_type(&theirs)
        ));
        if let Some((ike, sa)) = newest {
            more(format_args!(
                "routing: routed-tunnel; owner: Child SA #{child}; established IKE SA: #{}; established Child SA: #{child};",
                ike_number(ike),
                child = child_number(sa)
            ));
            if let Some(newest) = ike_algorithms(ike) {
                more(format_args!("IKEv2 algorithm newest: {newest}"));
            }
            let pfs = sa.ke.as_deref().map_or("<Phase1>".to_owned(), key_exchange);
            more(format_args!(
                "ESP algorithm newest: {}; pfsgroup={pfs}",
                esp_algorithms(sa)
            ));
        }
    }
}

/// A connection that is not loaded: left first, since nobody knows which end is this host.
fn print_absent(out: &Out, name: &str, not: &NotLoaded, brief: bool) {
    let [left, right] = not.ends.as_slice() else {
        return;
    };
    let state = match not.kind {
        Absence::Unoriented => "unoriented",
        Absence::Ignored | Absence::Unrouted | Absence::Unresolved => "unrouted",
    };
    let (first, second) = match out.style {
        Style::Five => (
            format!("{state}; my_ip=unset; their_ip=unset;"),
            format!(
                "host: {state}; local: {}; remote: {};",
                left.host, right.host
            ),
        ),
        Style::Four => (
            "unrouted; eroute owner: #0".to_owned(),
            format!("  {state}; my_ip=unset; their_ip=unset;"),
        ),
    };
    let (left, right) = (written_end(left), written_end(right));
    let client = |client: Option<String>, before, after| {
        client.map_or_else(String::new, |client| format!("{before}{client}{after}"))
    };
    let ends = format!(
        "{}{}...{}{}",
        client(left.1, "", "==="),
        left.0,
        right.0,
        client(right.1, "===", "")
    );
    out.write("000", format_args!("\"{name}\": {ends}; {first}"));
    if !brief {
        out.write("000", format_args!("\"{name}\":   {second}"));
        out.write("000", format_args!("\"{name}\":   {};", not.why));
    }
}

/// An end, and what is behind it.
fn written_end(written: &WrittenEnd) -> (String, Option<String>) {
    let id = written
        .id
        .as_deref()
        .map_or(written.host.clone(), super::written);
    let (host, end) = end(std::slice::from_ref(&written.host), &id);
    (end, client_beside(&written.clients, &host))
}

/// How long SAs live. obol lets them end a tenth earlier at random at most, which is its fuzz.
fn lives(style: Style, connection: &ConnectionReport, child: &ChildReport) -> String {
    let limit = |limit: Option<u64>| limit.map_or("2^63".to_owned(), |limit| limit.to_string());
    let tries = match style {
        Style::Five => String::new(),
        Style::Four => format!(" keyingtries: {};", connection.keying_tries),
    };
    format!(
        "ike_life: {}s; ipsec_life: {}s; ipsec_max_bytes: {}B; ipsec_max_packets: {}; replay_window: {}; rekey_margin: {}s; rekey_fuzz: 10%;{tries}",
        connection.ike_life_s,
        child.life_s,
        limit(child.rekey_bytes),
        limit(child.rekey_packets),
        obol_esp::SaParams::REPLAY_WINDOW,
        connection.margin_s,
    )
}

/// `IKEv2+PSK+ENCRYPT+TUNNEL+PFS+UP+IKE_FRAG_ALLOW+ESN_NO+ESN_YES`.
fn policy(connection: &ConnectionReport, child: &ChildReport) -> String {
    let offer = child.offer.unwrap_or_default();
    let said = child.cleartext.as_deref().unwrap_or_default();
    let clear = |when: &str| said.ends_with(when);
    let signatures = signatures(&connection.local).join("+");
    let words = [
        ("IKEv2", true),
        ("PSK", connection.remote.auth.contains("psk")),
        (signatures.as_str(), connection.local.auth != "psk"),
        ("ENCRYPT", true),
        ("TRANSPORT", child.mode == "transport"),
        ("TUNNEL", child.mode != "transport"),
        ("PFS", offer.pfs),
        ("DONT_REKEY", connection.never_rekeyed),
        ("UP", child.start_action == "start"),
        ("ROUTE", child.start_action == "trap"),
        (
            "NEGO_PASS",
            clear("while negotiating") || clear("without SA"),
        ),
        ("failurePASS", clear("after failure") || clear("without SA")),
        ("IKE_FRAG_ALLOW", connection.fragmentation),
        ("ESN_NO", offer.no_esn),
        ("ESN_YES", offer.esn),
    ];
    let words = words.iter().filter(|(_, holds)| *holds);
    words.map(|(word, _)| *word).collect::<Vec<_>>().join("+")
}

fn routing(style: Style, state: Option<PolicyState>, newest: Option<&ChildSaReport>) -> String {
    let owner = newest.map_or(0, child_number);
    match (style, state) {
        (Style::Five, Some(PolicyState::Up)) => "routed-tunnel".to_owned(),
        (Style::Five, Some(PolicyState::Trapped)) => "routed-ondemand".to_owned(),
        (Style::Five, _) => "unrouted".to_owned(),
        (Style::Four, Some(PolicyState::Up)) => format!("erouted; eroute owner: #{owner}"),
        (Style::Four, Some(PolicyState::Trapped)) => {
            "prospective erouted; eroute owner: #0".to_owned()
        }
        (Style::Four, _) => "unrouted; eroute owner: #0".to_owned(),
    }
}

fn local_end(connection: &ConnectionReport, child: &ChildReport) -> String {
    let (host, end) = end(&connection.local_addrs, &local_id(connection));
    match client_beside(&child.local_ts, &host) {
        Some(client) => format!("{client}==={end}"),
        None => end,
    }
}

fn remote_end(connection: &ConnectionReport, child: &ChildReport) -> String {
    let (host, end) = end(&connection.remote_addrs, &remote_id(connection));
    match client_beside(&child.remote_ts, &host) {
        Some(client) => format!("{end}==={client}"),
        None => end,
    }
}

/// `HOST[ID]`, without an identity that is the address.
fn end(addresses: &[String], id: &str) -> (String, String) {
    let host = addresses.first().map_or("%any", String::as_str).to_owned();
    let end = match id == host || id == "%any" && host == "%any" {
        true => host.clone(),
        false => format!("{host}[{id}]"),
    };
    (host, end)
}

/// What is protected, unless it is just the host.
fn client_beside(selectors: &[String], host: &str) -> Option<String> {
    let own = |selector: &String| selector == host || selector.starts_with("dynamic");
    match selectors {
        [] => None,
        [one] if own(one) => None,
        all => Some(client(all)),
    }
}

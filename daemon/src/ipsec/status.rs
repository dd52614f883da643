//! The daemon's state in pluto's lines, those of 5.2 or of 4.x.

use std::cell::RefCell;
use std::collections::HashMap;

use obol_ike::identity::Identity;
use obol_ike::proposal::EspProposal;

use super::out::{Out, Style};
use super::{Ended, code};
use crate::config::shunt::{DROP, PASS};
use crate::control::protocol::{
    ChildReport, ChildSaReport, ConnectionReport, IkeSaReport, ListReport, PolicyState,
    StatusReport,
};

/// Why a connection is not there at all.
pub(super) const IGNORED: &str = "auto=ignore";

/// What the daemon says of itself.
pub(super) struct View {
    pub(super) status: StatusReport,
    pub(super) list: ListReport,
    /// Where in the list a connection is.
    places: HashMap<String, usize>,
    /// Which IKE SAs a connection has.
    sas: HashMap<String, Vec<usize>>,
    /// What lists of proposals offer: thousands of children have few different ones.
    offers: RefCell<HashMap<Vec<String>, Offer>>,
}

/// What the ESP proposals of a child offer.
#[derive(Clone, Copy)]
struct Offer {
    pfs: bool,
    esn: bool,
    no_esn: bool,
}

/// pluto counts all SAs by one number; obol counts IKE SAs and Child SAs apart.
pub(super) fn ike_number(sa: &IkeSaReport) -> u64 {
    (2 * sa.id).saturating_sub(1)
}

/// The same of a Child SA.
pub(super) fn child_number(child: &ChildSaReport) -> u64 {
    2 * child.id
}

impl View {
    /// Of what the daemon has said.
    pub(super) fn new(status: StatusReport, list: ListReport) -> Self {
        let names = list.connections.iter().map(|connection| &connection.name);
        let places = names.cloned().zip(0..).collect();
        let mut sas: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, sa) in status.ike_sas.iter().enumerate() {
            sas.entry(sa.name.clone()).or_default().push(place);
        }
        Self {
            status,
            list,
            places,
            sas,
            offers: RefCell::default(),
        }
    }

    fn offer(&self, child: &ChildReport) -> Offer {
        if let Some(known) = self.offers.borrow().get(&child.proposals) {
            return *known;
        }
        let proposals = child.proposals.iter();
        let proposals: Vec<EspProposal> = proposals
            .filter_map(|text| EspProposal::parse(text).ok())
            .flatten()
            .collect();
        let has = |esn: bool| {
            let mut all = proposals.iter();
            all.any(|proposal| proposal.esn.contains(&esn))
        };
        let offer = Offer {
            pfs: proposals.iter().any(|p| !p.ke.is_empty()),
            esn: has(true),
            no_esn: has(false),
        };
        let mut offers = self.offers.borrow_mut();
        offers.insert(child.proposals.clone(), offer);
        offer
    }

    /// A connection by its name.
    pub(super) fn connection(&self, name: &str) -> Option<&ConnectionReport> {
        self.list.connections.get(*self.places.get(name)?)
    }

    /// The IKE SAs of a connection.
    pub(super) fn sas_of(&self, connection: &str) -> impl Iterator<Item = &IkeSaReport> {
        let places = self.sas.get(connection).into_iter().flatten();
        places.map(|place| &self.status.ike_sas[*place])
    }

    /// All children that are configured, with their connections.
    pub(super) fn children(&self) -> impl Iterator<Item = (&ConnectionReport, &ChildReport)> {
        let connections = self.list.connections.iter();
        connections.flat_map(|connection| connection.children.iter().map(move |c| (connection, c)))
    }

    /// Those that a name means.
    pub(super) fn find<'a>(
        &'a self,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ConnectionReport, &'a ChildReport)> {
        let children = self.children();
        children.filter(move |(connection, child)| self.means(name, &connection.name, &child.name))
    }

    /// Why there is nothing of this name.
    pub(super) fn unknown(&self, name: &str) -> Ended {
        match self.status.not_loaded.get(name) {
            Some(why) if !why.starts_with(IGNORED) => Ended::new(
                code::NOT_ORIENTED,
                format!("we cannot identify ourselves with either end of this connection.  {why}"),
            ),
            _ => Ended::unknown(name),
        }
    }

    /// Whether a name means packets that pass or are dropped without IKE.
    pub(super) fn is_shunt(&self, name: &str) -> bool {
        let places = self.status.names.get(name);
        let mut places = places.into_iter().flatten();
        places.any(|(connection, _)| [PASS, DROP].contains(&connection.as_str()))
    }

    /// Whether a name, if there is one, means this child.
    fn means(&self, name: Option<&str>, connection: &str, child: &str) -> bool {
        let Some(name) = name else {
            return true;
        };
        match self.status.names.get(name) {
            Some(places) => places
                .iter()
                .any(|(of, own)| (of.as_str(), own.as_str()) == (connection, child)),
            None => super::is_meant(name, child),
        }
    }

    /// The SAs of a child that are up, the newest first.
    pub(super) fn up<'a>(
        &'a self,
        connection: &'a str,
        child: &'a str,
    ) -> Vec<(&'a IkeSaReport, &'a ChildSaReport)> {
        let sas = self.sas_of(connection);
        let children = sas.flat_map(|sa| sa.children.iter().map(move |child| (sa, child)));
        let mut up: Vec<_> = children
            .filter(|(_, sa)| sa.name == child && sa.state == "installed")
            .collect();
        up.sort_by_key(|(_, child)| std::cmp::Reverse(child.id));
        up
    }

    /// `"NAME"`, with number and address of the peer where the connection is one for many.
    pub(super) fn instance(&self, sa: &IkeSaReport, child: &str) -> String {
        let connection = self.connection(&sa.name);
        if connection.is_none_or(|connection| !connection.remote_addrs.is_empty()) {
            return format!("\"{child}\"");
        }
        let before = self.sas_of(&sa.name).filter(|other| other.id < sa.id);
        format!("\"{child}\"[{}] {}", before.count() + 1, sa.remote.addr)
    }

    /// The lines of `ipsec status`.
    pub(super) fn print_all(&self, out: &Out) {
        let kernel = match self.status.daemon.data_plane.as_str() {
            "kernel" => "xfrm",
            other => other,
        };
        out.line("000", &format!("using kernel interface: {kernel}"));
        out.blank();
        let mut addresses: Vec<&String> = self
            .list
            .connections
            .iter()
            .flat_map(|connection| &connection.local_addrs)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            match out.style {
                Style::Five => {
                    out.line("000", &format!("interface * {address}:UDP/500"));
                    out.line("000", &format!("interface * {address}:UDP/4500 (NAT)"));
                }
                Style::Four => {
                    out.line("000", &format!("interface * UDP {address}:500"));
                    out.line("000", &format!("interface * UDP {address}:4500"));
                }
            }
        }
        out.blank();
        out.line("000", "fips mode=disabled;");
        out.blank();
        out.line("000", "config setup options:");
        out.blank();
        out.line("000", &format!("configfile={}", self.status.daemon.config));
        out.blank();
        out.line("000", "Connection list:");
        out.blank();
        let loaded = self.print_connections(out, None, false);
        let active = self.children();
        let active = active.filter(|(_, child)| child.state == Some(PolicyState::Up));
        out.blank();
        out.line(
            "000",
            &format!(
                "Total IPsec connections: loaded {loaded}, active {}",
                active.count()
            ),
        );
        out.blank();
        self.print_brief(out);
        out.blank();
        self.print_states(out);
        out.blank();
        self.print_shunts(out);
    }

    /// Connections of this name, or all; how many.
    pub(super) fn print_connections(&self, out: &Out, name: Option<&str>, brief: bool) -> usize {
        let mut count = 0;
        for (connection, child) in self.find(name) {
            count += 1;
            self.print_connection(out, connection, child, brief);
        }
        for (own, why) in &self.status.not_loaded {
            if !why.starts_with(IGNORED) && name.is_none_or(|name| name == own) {
                count += 1;
                out.line("000", &format!("\"{own}\": unoriented; {why};"));
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
        let first = format!(
            "\"{name}\": {}...{}; {}{ips}",
            local_end(connection, child),
            remote_end(connection, child),
            routing(out.style, child.state, newest.map(|(_, sa)| *sa))
        );
        out.line("000", &first);
        if brief {
            return;
        }
        let more = |text: &str| out.line("000", &format!("\"{name}\":   {text}"));
        let one = |list: &[String]| list.first().map_or("%any", String::as_str).to_owned();
        if out.style == Style::Four {
            more("  oriented; my_ip=unset; their_ip=unset;");
            let (ike, sa) = newest.map_or((0, 0), |(ike, sa)| (ike_number(ike), child_number(sa)));
            more(&format!("newest IKE SA: #{ike}; newest IPsec SA: #{sa};"));
        }
        let mut host = format!(
            "host: oriented; local: {}; remote: {};",
            one(&connection.local_addrs),
            one(&connection.remote_addrs)
        );
        if let Some((ike, _)) = newest {
            host += &format!(" established IKE SA: #{};", ike_number(ike));
        }
        more(&host);
        let both = [&connection.local, &connection.remote];
        let [own, peer] = both.map(|auth| match auth.auth.as_str() {
            "psk" => "secret",
            _ => "RSASIG+RSASIG_v1_5",
        });
        let own = match own {
            "secret" => own.to_owned(),
            proofs => format!("rsasig({proofs})"),
        };
        more(&format!(
            "our auth:{own}, their auth:{peer}, our autheap:none, their autheap:none;"
        ));
        more("sec_label:unset;");
        more(&lives(out.style, connection, child));
        let initial_contact = if connection.initial_contact {
            "yes"
        } else {
            "no"
        };
        more(&format!(
            "initial-contact:{initial_contact}; cisco-unity:no; fake-strongswan:no; send-vendorid:no; send-no-esp-tfc:no;"
        ));
        let offer = self.offer(child);
        more(&format!("policy: {};", policy(connection, child, offer)));
        if connection.local.auth != "psk" {
            more("v2-auth-hash-policy: SHA2_256+SHA2_384+SHA2_512;");
        }
        let (ours, theirs) = (local_id(connection), remote_id(connection));
        more(&format!(
            "our idtype: {}; our id={ours}; their idtype: {}; their id={theirs}",
            id_type(&ours),
            id_type(&theirs)
        ));
        if let Some((ike, sa)) = newest {
            more(&format!(
                "routing: routed-tunnel; owner: Child SA #{child}; established IKE SA: #{}; established Child SA: #{child};",
                ike_number(ike),
                child = child_number(sa)
            ));
            if let Some(newest) = ike_algorithms(ike) {
                more(&format!("IKEv2 algorithm newest: {newest}"));
            }
            let pfs = sa.ke.as_deref().map_or("<Phase1>".to_owned(), key_exchange);
            more(&format!(
                "ESP algorithm newest: {}; pfsgroup={pfs}",
                esp_algorithms(sa)
            ));
        }
    }

    pub(super) fn print_brief(&self, out: &Out) {
        let sas = &self.status.ike_sas;
        let half = sas.iter().filter(|sa| sa.state == "connecting").count();
        let children: usize = sas.iter().map(|sa| sa.children.len()).sum();
        let cookies = match self.status.daemon.asks_for_cookies {
            true => "required",
            false => "not required",
        };
        let text =
            format!("State Information: DDoS cookies {cookies}, Accepting new IKE connections");
        out.line("000", &text);
        out.line(
            "000",
            &format!(
                "IKE SAs: total({}), half-open({half}), open(0), authenticated({}), anonymous(0)",
                sas.len(),
                sas.len() - half
            ),
        );
        out.line(
            "000",
            &format!("IPsec SAs: total({children}), authenticated({children}), anonymous(0)"),
        );
    }

    pub(super) fn print_states(&self, out: &Out) {
        for sa in &self.status.ike_sas {
            let number = ike_number(sa);
            let name = self.instance(sa, &sa.name);
            let port = sa.remote.port;
            let v2 = if out.style == Style::Four {
                "STATE_V2_"
            } else {
                ""
            };
            if sa.state == "connecting" {
                let text = format!(
                    "#{number}: {name}:{port} {v2}IKE_SA_INIT_I (sent IKE_SA_INIT request); idle;"
                );
                out.line("000", &text);
                continue;
            }
            let most = self
                .connection(&sa.name)
                .map_or(0, |connection| connection.ike_life_s);
            let life = rekey(sa.rekey_in_s) + &replace(most, sa.age_s);
            let newer = self
                .sas_of(&sa.name)
                .filter(|other| other.remote.addr == sa.remote.addr)
                .any(|other| other.state != "connecting" && other.id > sa.id);
            let newest = if newer { "" } else { "newest; " };
            let text = format!(
                "#{number}: {name}:{port} {v2}ESTABLISHED_IKE_SA (established IKE SA); {life}{newest}idle;"
            );
            out.line("000", &text);
            for child in &sa.children {
                self.print_child(out, sa, child, v2);
            }
        }
    }

    fn print_child(&self, out: &Out, sa: &IkeSaReport, child: &ChildSaReport, v2: &str) {
        let number = child_number(child);
        let name = self.instance(sa, &child.name);
        let of = format!("IKE SA #{}", ike_number(sa));
        let configured = self.connection(&sa.name).into_iter();
        let mut configured = configured.flat_map(|connection| &connection.children);
        let most = configured
            .find(|known| known.name == child.name)
            .map_or(0, |known| known.life_s);
        let up = self.up(&sa.name, &child.name);
        let mut same = up
            .iter()
            .filter(|(ike, _)| ike.remote.addr == sa.remote.addr);
        let newest = match same.next() {
            Some((_, newest)) if newest.id == child.id => "newest; eroute owner; ",
            _ => "",
        };
        let text = format!(
            "#{number}: {name}:{} {v2}ESTABLISHED_CHILD_SA (established Child SA); {}{newest}{of}; idle;",
            sa.remote.port,
            rekey(child.rekey_in_s) + &replace(most, child.age_s)
        );
        out.line("000", &text);
        let (local, remote) = (&sa.local.addr, &sa.remote.addr);
        let tunnel = match child.mode.as_str() {
            "tunnel" => format!(" tun.0@{remote} tun.0@{local}"),
            _ => String::new(),
        };
        let text = format!(
            "#{number}: {name} esp.{}@{remote} esp.{}@{local}{tunnel} Traffic: ESPin={}B ESPout={}B ESPmax=2^63B ",
            child.spi_out, child.spi_in, child.bytes_in, child.bytes_out
        );
        out.line("000", &text);
    }

    /// What `trafficstatus` says; `now` in seconds since 1970.
    pub(super) fn print_traffic(&self, out: &Out, name: Option<&str>, now: u64) {
        for sa in &self.status.ike_sas {
            let children = sa.children.iter();
            for child in children.filter(|child| self.means(name, &sa.name, &child.name)) {
                let id = sa.remote.id.as_deref().map(written).unwrap_or_default();
                let text = format!(
                    "#{}: {}, type=ESP, add_time={}, inBytes={}, outBytes={}, maxBytes=2^63B, id='{id}'",
                    child_number(child),
                    self.instance(sa, &child.name),
                    now.saturating_sub(child.age_s),
                    child.bytes_in,
                    child.bytes_out
                );
                out.line("006", &text);
            }
        }
    }

    pub(super) fn print_shunts(&self, out: &Out) {
        out.line("000", "Bare Shunt list:");
        out.blank();
        for policy in &self.status.policies {
            let what = match policy.connection.as_str() {
                PASS => "%pass",
                DROP => "%drop",
                _ => continue,
            };
            for (local, remote) in policy
                .local_ts
                .iter()
                .flat_map(|local| policy.remote_ts.iter().map(move |remote| (local, remote)))
            {
                let [(ours, protocol), (theirs, other)] = [local, remote].map(|ts| shunt_end(ts));
                let protocol = if protocol == 0 { other } else { protocol };
                out.line(
                    "000",
                    &format!(
                        "{ours} -{protocol}-> {theirs} => {what}    {}",
                        policy.child
                    ),
                );
            }
        }
    }

    pub(super) fn print_global(&self, out: &Out) {
        let sas = &self.status.ike_sas;
        let children: Vec<&ChildSaReport> = sas.iter().flat_map(|sa| &sa.children).collect();
        let sum = |of: fn(&ChildSaReport) -> u64| children.iter().map(|child| of(child)).sum();
        let (inwards, outwards): (u64, u64) = (sum(|c| c.bytes_in), sum(|c| c.bytes_out));
        for (key, value) in [
            ("current.states.all", (sas.len() + children.len()) as u64),
            ("current.states.ipsec", children.len() as u64),
            ("current.states.ike", sas.len() as u64),
            ("total.ipsec.traffic.in", inwards),
            ("total.ipsec.traffic.out", outwards),
        ] {
            out.line("000", &format!("{key}={value}"));
        }
        for (reason, count) in &self.status.drops {
            out.line("000", &format!("total.obol.dropped.{reason}={count}"));
        }
    }
}

/// How long SAs live. obol lets them end a tenth earlier at random at most, which is its fuzz.
fn lives(style: Style, connection: &ConnectionReport, child: &ChildReport) -> String {
    let limit = |limit: Option<u64>| limit.map_or("2^63".to_owned(), |limit| limit.to_string());
    let tries = match style {
        Style::Five => "",
        Style::Four => " keyingtries: 0;",
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
fn policy(connection: &ConnectionReport, child: &ChildReport, offer: Offer) -> String {
    let said = child.cleartext.as_deref().unwrap_or_default();
    let clear = |when: &str| said.ends_with(when);
    let words = [
        ("IKEv2", true),
        ("PSK", connection.local.auth == "psk"),
        ("RSASIG+RSASIG_v1_5", connection.local.auth != "psk"),
        ("ENCRYPT", true),
        ("TRANSPORT", child.mode == "transport"),
        ("TUNNEL", child.mode != "transport"),
        ("PFS", offer.pfs),
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

/// `tunnel [OURS===THEIRS] {ESP...}` of a Child SA.
pub(super) fn child_words(style: Style, child: &ChildSaReport, active: bool) -> String {
    let selectors = match style {
        Style::Five => format!(
            "[{}==={}]",
            client(&child.local_ts),
            client(&child.remote_ts)
        ),
        Style::Four => format!(
            "[{}] -> [{}]",
            range(&child.local_ts),
            range(&child.remote_ts)
        ),
    };
    let mut esp = match child.encapsulation.as_str() {
        "udp" => "ESPinUDP".to_owned(),
        _ => "ESP".to_owned(),
    };
    if child.esn {
        esp.push_str("/ESN");
    }
    let ke = child.ke.as_deref().map(key_exchange);
    let ke = ke.map(|ke| format!("-{ke}")).unwrap_or_default();
    format!(
        "IPsec {} {selectors} {{{esp}=>0x{} <0x{} xfrm={}{ke} DPD={}}}",
        child.mode,
        child.spi_out,
        child.spi_in,
        esp_algorithms(child),
        if active { "active" } else { "passive" }
    )
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

/// One end of a shunt as pluto writes it, with its protocol: `10.1.0.0/24`, `10.1.0.0/24:443`.
fn shunt_end(selector: &str) -> (String, u8) {
    let addresses = selector.split('[').next().unwrap_or(selector);
    let network = client(&[addresses.to_owned()]);
    match selector.parse::<obol_ike::ts::TrafficSelector>() {
        Ok(ts) if ts.start_port == ts.end_port => {
            (format!("{network}:{}", ts.start_port), ts.protocol)
        }
        Ok(ts) => (network, ts.protocol),
        Err(_) => (network, 0),
    }
}

/// Selectors as pluto writes them: `10.1.0.0/24`, `192.0.2.1/32/TCP/27017`.
fn client(selectors: &[String]) -> String {
    let one = |selector: &String| {
        let (address, rest) = selector.split_once('[').unwrap_or((selector, ""));
        let whole = match address {
            range if range.contains('-') || range.contains('/') => range.to_owned(),
            v6 if v6.contains(':') => format!("{v6}/128"),
            v4 => format!("{v4}/32"),
        };
        match rest.trim_end_matches(']') {
            "" => whole,
            protocol => format!("{whole}/{}", protocol.to_uppercase()),
        }
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The same in the way of 4.x: `10.1.0.0-10.1.0.255:0-65535 0`.
fn range(selectors: &[String]) -> String {
    let one = |selector: &String| {
        let Ok(ts) = selector.parse::<obol_ike::ts::TrafficSelector>() else {
            return selector.clone();
        };
        format!(
            "{}-{}:{}-{} {}",
            ts.start, ts.end, ts.start_port, ts.end_port, ts.protocol
        )
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(super) fn local_id(connection: &ConnectionReport) -> String {
    let address = connection
        .local_addrs
        .first()
        .map_or("%any", String::as_str);
    connection
        .local
        .id
        .as_deref()
        .map_or(address.to_owned(), written)
}

pub(super) fn remote_id(connection: &ConnectionReport) -> String {
    connection
        .remote
        .id
        .as_deref()
        .map_or("%any".to_owned(), written)
}

/// An identity as pluto writes it: with `@` before a name.
pub(super) fn written(id: &str) -> String {
    match id.parse() {
        Ok(Identity::Fqdn(_)) if !id.starts_with('@') => format!("@{id}"),
        _ => id.to_owned(),
    }
}

/// pluto's word for the kind of an identity.
pub(super) fn id_type(id: &str) -> &'static str {
    match id.parse() {
        Ok(Identity::Ipv4(_)) => "ID_IPV4_ADDR",
        Ok(Identity::Ipv6(_)) => "ID_IPV6_ADDR",
        Ok(Identity::Fqdn(_)) => "ID_FQDN",
        Ok(Identity::Rfc822(_)) => "ID_USER_FQDN",
        Ok(Identity::KeyId(_)) => "ID_KEY_ID",
        _ => "%none",
    }
}

fn rekey(after: Option<u64>) -> String {
    after.map_or(String::new(), |seconds| format!("REKEY in {seconds}s; "))
}

fn replace(most: u64, age: u64) -> String {
    match most.saturating_sub(age) {
        0 => String::new(),
        seconds => format!("REPLACE in {seconds}s; "),
    }
}

/// `AES_GCM_16_256-HMAC_SHA2_512-DH19`.
fn ike_algorithms(sa: &IkeSaReport) -> Option<String> {
    let algorithms = sa.algorithms.as_ref()?;
    Some(format!(
        "{}-{}-{}",
        algorithms.encr.replace('-', "_"),
        algorithms.prf.trim_start_matches("PRF_"),
        key_exchange(&algorithms.ke)
    ))
}

fn esp_algorithms(child: &ChildSaReport) -> String {
    let integ = child.integ.as_deref().unwrap_or("NONE");
    format!(
        "{}-{}",
        child.encr.replace('-', "_"),
        integ.trim_start_matches("AUTH_")
    )
}

/// pluto names the elliptic curves by number.
fn key_exchange(ke: &str) -> String {
    match ke {
        "ECP_256" => "DH19".to_owned(),
        "ECP_384" => "DH20".to_owned(),
        "ECP_521" => "DH21".to_owned(),
        "CURVE25519" => "DH31".to_owned(),
        modp => modp.replacen("MODP_", "MODP", 1),
    }
}

//! A cluster whose nodes speak TLS only: each has a certificate of its own.

use std::{path::Path, time::Duration};

use ucache::{Backend, Cache, OnDown};

use crate::{
    backend::{self, Server},
    certificates::{Authority, Pair},
    cluster::Cluster,
    clusters::{copied, key_at, operate},
    copies::{armed, is_hit, machine, within},
    ports::free_port,
};

const LONG: Duration = Duration::from_secs(10);

/// The options of a node with this certificate. All ask clients for one, each other, too.
fn options(authority: &Authority, pair: &Pair) -> Vec<String> {
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let words = ["--tls-cert-file", &text(&pair.cert), "--tls-key-file", &text(&pair.key)];
    let more = ["--tls-ca-cert-file", &text(&authority.file()), "--tls-auth-clients", "yes"];
    words.into_iter().chain(more).map(str::to_owned).collect()
}

/// Nodes whose certificates are for `names`, and say that they are at `announced`.
fn cluster(authority: &Authority, names: &[&str; 3], announced: Option<&str>) -> Cluster {
    Cluster::of_primaries_by_tls(&backend::programs()[0], &|n| {
        let pair = authority.certificate(&format!("node {n}"), &names[n..=n]);
        let mut words = options(authority, &pair);
        if let Some(host) = announced {
            words.extend(["--cluster-announce-hostname", host].map(str::to_owned));
            words.extend(["--cluster-preferred-endpoint-type", "hostname"].map(str::to_owned));
        }
        words
    })
}

/// A backend whose certificate the nodes accept.
fn trusting(authority: &Authority, url: &str) -> Backend {
    let mine = authority.certificate("client", &["client"]);
    let backend = Backend::url(url).ca_file(authority.file()).client_certificate(&mine.cert, &mine.key);
    backend.timeout(LONG).connect_timeout(LONG).on_down(OnDown::Error)
}

/// A cache without copies.
fn far(name: &str, backend: Backend) -> Cache {
    Cache::builder(name).items(1000).backend(backend.near(false).prefix("p:")).build().expect("a cache")
}

#[test]
fn every_operation_works_by_tls_and_slots_that_move_are_followed() {
    let authority = Authority::new();
    let cluster = cluster(&authority, &["127.0.0.1"; 3], None);
    let backend = || trusting(&authority, &cluster.url());
    let idle = far("tls nodes far", backend());
    operate(&idle);
    let [a, b] = ["tls nodes a", "tls nodes b"].map(|name| machine(name, backend()));
    a.clear().expect("clear");
    operate(&a);
    let keys: Vec<_> = (0..3).map(|node| key_at(&cluster, node)).collect();
    for (node, key) in keys.iter().enumerate() {
        a.set(key, "1").expect("set");
        copied(&b, key);
        cluster.nodes[node].server.ask(["SET", &format!("p:{key}"), "2"]);
        within("the change", || b.get_str(key).expect("get").as_deref() == Some("2"));
    }
    // The clients' maps are of before.
    let (key, full) = (&keys[0], format!("p:{}", keys[0]));
    let terms = b.near_stats().expect("a backend").terms;
    copied(&b, key);
    let slot = cluster.slot(&full);
    cluster.move_slot(slot, 0, 1);
    idle.set(key, "moved").expect("set");
    assert_eq!(cluster.nodes[1].server.ask(["GET", &full]), "moved");
    within("the change", || b.get_str(key).expect("get").as_deref() == Some("moved"));
    within("the owner follows", || b.near_stats().expect("a backend").terms > terms);
    copied(&b, key);
    cluster.nodes[1].server.ask(["SET", &full, "heard"]);
    within("its messages", || b.get_str(key).expect("get").as_deref() == Some("heard"));
    // On its way back.
    let set = |node: usize, what: [&str; 2]| {
        let words = ["CLUSTER", "SETSLOT", &slot.to_string(), what[0], what[1]];
        assert_eq!(cluster.nodes[node].server.ask(words), "OK");
    };
    set(0, ["IMPORTING", &cluster.nodes[1].id]);
    set(1, ["MIGRATING", &cluster.nodes[0].id]);
    idle.delete(key).expect("delete");
    idle.set(key, "asked").expect("set");
    assert_eq!(cluster.nodes[1].server.ask(["EXISTS", &full]).split(' ').next(), Some("ASK"));
    within("the change", || b.get_str(key).expect("get").as_deref() == Some("asked"));
    cluster.move_slot(slot, 1, 0);
    within("it is back", || b.get_str(key).expect("get").as_deref() == Some("asked"));
}

/// Redis 7.0 names the ports of `tls-port` only if the nodes speak TLS with one another, too.
#[test]
fn a_cluster_that_names_other_ports_says_what_is_missing() {
    let authority = Authority::new();
    let pair = authority.certificate("node", &["127.0.0.1"]);
    for (plain, name) in [(0, "no port"), (free_port(), "plain port")] {
        let (port, bus) = (free_port(), free_port().to_string());
        let mut words = options(&authority, &pair);
        words.extend(["--cluster-enabled", "yes", "--tls-port", &port.to_string()].map(str::to_owned));
        words.extend(["--cluster-port", &bus].map(str::to_owned));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let node = Server::with(&backend::programs()[0], plain, &words);
        assert_eq!(node.ask(["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
        within("it serves", || node.ask(["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        let url = format!("rediss+cluster://127.0.0.1:{port}");
        let backend = trusting(&authority, &url).timeout(Duration::from_millis(700));
        let error = far(name, backend).get("k").expect_err("refused").to_string();
        assert!(error.contains("tls-cluster yes"), "{error}");
    }
}

#[test]
fn a_node_with_another_name_than_its_certificates_is_not_used() {
    let authority = Authority::new();
    let cluster = cluster(&authority, &["localhost"; 3], Some("localhost"));
    let url = cluster.url().replace("127.0.0.1", "localhost");
    let c = machine("named nodes", trusting(&authority, &url).max_stale(Duration::from_millis(500)));
    let keys: Vec<_> = (0..3).map(|node| key_at(&cluster, node)).collect();
    for key in &keys {
        c.set(key, "v").expect("set");
        copied(&c, key);
    }
    // By the address that the nodes have, which is not in their certificates.
    let error = far("unnamed nodes", trusting(&authority, &cluster.url())).get("k").expect_err("refused");
    let words = "the server's certificate is for DnsName(\"localhost\"), not for 127.0.0.1";
    assert!(error.to_string().contains(words), "{error}");
    let named = trusting(&authority, &cluster.url()).tls_name("localhost");
    assert_eq!(far("names given", named).get_str(&keys[0]).expect("get").as_deref(), Some("v"));
    // One that says that it is at another host.
    let announce = |host: &str| {
        let words = ["CONFIG", "SET", "cluster-announce-hostname", host];
        assert_eq!(cluster.nodes[0].server.ask(words), "OK");
    };
    announce("127.0.0.1");
    let mut said = String::new();
    within("its keys are refused", || {
        said = c.get(&keys[0]).err().map(|error| error.to_string()).unwrap_or_default();
        said.contains("certificate")
    });
    assert!(said.contains(words) && said.contains("see option tls_name"), "{said}");
    cluster.nodes[0].server.ask(["SET", &format!("p:{}", keys[0]), "unseen"]);
    for _ in 0..10 {
        assert!(c.get(&keys[0]).is_err() && c.set(&keys[0], "w").is_err());
        keys[1..].iter().for_each(|key| copied(&c, key));
    }
    assert_eq!(cluster.nodes[0].server.ask(["GET", &format!("p:{}", keys[0])]), "unseen");
    announce("localhost");
    within("it is used again", || c.get_str(&keys[0]).is_ok_and(|found| found.as_deref() == Some("unseen")));
    within("a copy", || is_hit(&c, &keys[0]));
    armed(&c);
}

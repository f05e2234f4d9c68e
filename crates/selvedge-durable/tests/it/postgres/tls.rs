//! Encryption: each `sslmode` against the real server, with certificates made here.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_durable::{Config, Engine, Error, Postgres, topic::ListTopics};

use super::server::Server;

/// An authority that signs for a server.
type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, for `name`, valid from some time ago `until` an offset from now.
fn signed(by: &Authority, name: &str, days: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    params.not_before = (now - 30 * day).into();
    let end = now + Duration::from_secs(days.max(0) as u64 * 86_400);
    params.not_after = (end - Duration::from_secs((-days).max(0) as u64 * 86_400)).into();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// A server that encrypts, as `db.test`, and takes passwords only so.
struct World {
    server: Server,
    address: String,
    authority: Authority,
    root: String,
}

impl World {
    fn new() -> Self {
        let server = Server::own();
        let authority = authority("the authority");
        let root = server.file("root.pem", &authority.pem()).display().to_string();
        server.psql("CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'swordfish'");
        server.psql("CREATE ROLE \"client.test\" LOGIN SUPERUSER");
        let (certificate, key) = signed(&authority, "db.test", 30);
        let file = |name, text: &str| server.file(name, text).display().to_string();
        let (certificate, key) = (file("server.pem", &certificate), file("server.key", &key));
        let address = server.listen(
            "hostssl all secret 127.0.0.0/8 scram-sha-256\nhost all secret 127.0.0.0/8 reject\nhostssl all client.test 127.0.0.0/8 cert",
            &[("ssl_cert_file", &certificate), ("ssl_key_file", &key), ("ssl_ca_file", &root), ("ssl", "on")],
        );
        Self { server, address, authority, root }
    }

    fn url(&self, host: &str, rest: &str) -> String {
        let address = &self.address;
        format!(
            "host={host} hostaddr={address} user=secret password=swordfish dbname=postgres application_name=it {rest}"
        )
    }

    /// Whether connections are encrypted, once they are there.
    async fn encrypted(&self, url: &str) -> Result<bool, Error> {
        let store = Postgres::open(Config::postgres(url))?;
        store.execute(ListTopics).await?;
        let sql = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'it'";
        match &*self.server.psql(sql) {
            "t" => Ok(true),
            "f" => Ok(false),
            other => panic!("some are and some are not: {other}"),
        }
    }

    async fn refused(&self, url: &str) -> String {
        let error = self.encrypted(url).await.unwrap_err();
        assert_eq!(error.code(), "SV0409", "{error}");
        error.to_string()
    }
}

#[tokio::test]
async fn each_mode_encrypts_and_verifies_as_much_as_it_says() {
    let world = World::new();
    let root = format!("sslrootcert={}", world.root);
    for (host, rest) in [
        ("db.test", "sslmode=prefer".to_owned()),
        ("db.test", String::new()),
        ("other.test", "sslmode=require".to_owned()),
        ("other.test", format!("sslmode=verify-ca {root}")),
        ("other.test", format!("sslmode=require {root}")),
        ("db.test", format!("sslmode=verify-full {root}")),
        ("db.test", format!("{root} channel_binding=require")),
    ] {
        assert!(world.encrypted(&world.url(host, &rest)).await.unwrap(), "{host} {rest}");
    }
    let name =
        world.refused(&world.url("other.test", &format!("sslmode=verify-full {root}"))).await;
    assert!(name.contains("other.test") && name.contains("db.test"), "{name}");
    let stranger = authority("somebody else");
    let other = world.server.file("other.pem", &stranger.pem()).display().to_string();
    for mode in ["require", "verify-ca", "verify-full"] {
        let rest = format!("sslmode={mode} sslrootcert={other}");
        let unknown = world.refused(&world.url("db.test", &rest)).await;
        assert!(unknown.contains("authority") && unknown.contains(&other), "{unknown}");
    }
    let system = world.refused(&world.url("db.test", "sslrootcert=system")).await;
    assert!(system.contains("sslrootcert="), "{system}");
    let nothing = world.refused(&world.url("db.test", "sslrootcert=/nowhere.pem")).await;
    assert!(nothing.contains("/nowhere.pem"), "{nothing}");
    // The server wants what the client refuses, and the other way round.
    let plain = Postgres::open(Config::postgres(world.url("db.test", "sslmode=disable")));
    let plain = plain.unwrap_err();
    assert_eq!(plain.code(), "SV0415", "{plain}");
    assert!(plain.to_string().contains("no encryption"), "{plain}");
    let wrong = world.url("db.test", "").replace("swordfish", "trout");
    let wrong = Postgres::open(Config::postgres(wrong)).unwrap_err();
    assert!(wrong.code() == "SV0415" && wrong.to_string().contains("password"), "{wrong}");
    assert!(!wrong.to_string().contains("trout"), "{wrong}");
    // Nobody encrypts a socket in the file system.
    let socket = format!("{}?sslmode=verify-full&application_name=it", world.server.url());
    assert!(!world.encrypted(&socket).await.unwrap());
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_until_there_is_a_new_one() {
    let world = World::new();
    let url = world.url("db.test", &format!("sslmode=verify-full sslrootcert={}", world.root));
    let store = Postgres::open(Config::postgres(&url)).unwrap();
    let exchange = |days| {
        let (certificate, key) = signed(&world.authority, "db.test", days);
        world.server.file("server.pem", &certificate);
        world.server.file("server.key", &key);
        world.server.reload();
    };
    exchange(-1);
    let refused = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Err(error) = Postgres::open(Config::postgres(&url)) {
                break error;
            }
        }
    });
    let refused = refused.await.expect("the server shows its new certificate");
    assert!(refused.code() == "SV0409" && refused.to_string().contains("expired"), "{refused}");
    assert!(world.encrypted(&world.url("db.test", "sslmode=require")).await.unwrap());
    // A store that was open connects again once the certificate is well.
    world.server.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'it'",
    );
    exchange(30);
    let again = tokio::time::timeout(Duration::from_secs(60), async {
        while store.wake().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.expect("it serves again");
}

#[tokio::test]
async fn a_client_certificate_stands_for_a_password() {
    let world = World::new();
    let (certificate, key) = signed(&world.authority, "client.test", 30);
    let certificate = world.server.file("client.pem", &certificate).display().to_string();
    let key = world.server.file("client.key", &key).display().to_string();
    let url = world.url("db.test", &format!("sslrootcert={}", world.root));
    let url = url.replace("user=secret password=swordfish", "user=client.test");
    assert!(world.encrypted(&format!("{url} sslcert={certificate} sslkey={key}")).await.unwrap());
    let without = Postgres::open(Config::postgres(&url)).unwrap_err();
    assert_eq!(without.code(), "SV0415", "{without}");
}

#[tokio::test]
async fn a_server_that_does_not_encrypt_is_refused_by_who_wants_it() {
    let server = Server::own();
    let address = server.listen("host all all 127.0.0.0/8 trust", &[]);
    let url = format!("postgres://postgres@{address}/postgres");
    for mode in ["require", "verify-ca", "verify-full"] {
        let refused = Postgres::open(Config::postgres(format!("{url}?sslmode={mode}")));
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), "SV0409", "{refused}");
        assert!(refused.to_string().contains("ssl = on"), "{refused}");
    }
    for mode in ["", "?sslmode=prefer", "?sslmode=disable"] {
        Postgres::open(Config::postgres(format!("{url}{mode}"))).unwrap();
    }
}

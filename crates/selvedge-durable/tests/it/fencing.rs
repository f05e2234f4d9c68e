//! A lock's holder is stopped for longer than its lease, a process of its own,
//! and goes on as if nothing had been: its late write is refused.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use selvedge_durable::{
    Config, Engine, Error, ManualClock, Operation, Sqlite,
    lease::{Acquire, CheckFence},
    state::{Condition, GetState, PutState},
};
use selvedge_patterns::wall::Wall;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::TcpListener,
};

const HOLDER: &str = "SELVEDGE_TEST_HOLDER";
const TTL: Duration = Duration::from_secs(15);

/// Does nothing in a usual run; in a process of its own it holds the lock and
/// writes until it is refused.
#[test]
fn acts_as_the_holder() {
    let Ok(address) = std::env::var(HOLDER) else { return };
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |line: String| {
        stream.write_all((line + "\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap()
    };
    let token = ask("acquire".to_owned());
    while ask(format!("write {token}")) == "done" {}
}

fn acquire(owner: &str) -> Acquire {
    let (resource, owner) = ("r".to_owned(), owner.to_owned());
    Acquire { resource, owner, ttl: TTL, permits: 1, wait: Duration::ZERO }
}

/// A write that happens for the live holder alone.
async fn write(store: &Sqlite, token: u64, value: &'static str) -> Result<(), Error> {
    let fence = CheckFence { resource: "r".to_owned(), token };
    let put = PutState {
        key: "k".to_owned(),
        value: value.into(),
        content_type: None,
        condition: Condition::Any,
        ttl: None,
    };
    store.transact(vec![Operation::CheckFence(fence), Operation::PutState(put)]).await.map(drop)
}

fn signal(process: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", process.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Waits until the process stands still, as the system sees it.
async fn stopped(process: &Child) {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_holder_that_was_stopped_writes_nothing_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall::from_secs(1_800_000_000)));
    let config = Config { clock: clock.clone(), ..Config::new(folder.path().join("store.db")) };
    let store = Sqlite::open(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fencing::acts_as_the_holder"])
        .env(HOLDER, listener.local_addr().unwrap().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (lines, mut answers) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(lines).lines();
    let (mut first, mut written, mut rival) = (None, 0, None);
    let refused = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let answer = match line.split_once(' ') {
            None => {
                let token = store.execute(acquire("holder")).await.unwrap().token;
                first = Some(token);
                token.to_string()
            }
            Some((_, token)) => match write(&store, token.parse().unwrap(), "holder").await {
                Ok(()) => "done".to_owned(),
                Err(error) => break error,
            },
        };
        written += usize::from(answer == "done");
        if written == 3 {
            // It has its lease, sleeps through the end of it, and knows nothing.
            signal(&holder, "STOP");
            stopped(&holder).await;
            assert_eq!(store.execute(acquire("rival")).await.unwrap_err().code(), "SV0430");
            clock.advance(TTL);
            let grant = store.execute(acquire("rival")).await.unwrap();
            write(&store, grant.token, "rival").await.unwrap();
            rival = Some(grant.token);
            signal(&holder, "CONT");
        }
        answers.write_all((answer + "\n").as_bytes()).await.unwrap();
    };
    answers.write_all(b"refused\n").await.unwrap();
    assert!(holder.wait().unwrap().success());
    assert!(matches!(refused, Error::Lost { .. }), "{refused}");
    assert_eq!(written, 3, "the first write after the stop was refused");
    assert!(first < rival, "tokens rise");
    let value = store.execute(GetState { key: "k".to_owned() }).await.unwrap().value;
    assert_eq!(&value[..], b"rival");
}

//! Files of the first version become files of this one, and a compaction ends,
//! whatever happens on the way.

use rusqlite::{Connection, OpenFlags, params};
use selvedge_durable::{
    Engine, Sqlite, compact,
    state::{Condition, PutState},
    topic::{From, NewMessage, Publish, PutTopic, ReadTopic, Settings},
    verify,
};

use crate::{disk::End, power::Rig};

const MESSAGES: u64 = 50;

fn text(n: u64) -> String {
    format!("{n}-{}", "x".repeat(200))
}

/// A file as the first version left it.
fn first_version(rig: &Rig) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let name = rig.disk.name();
    let conn = Connection::open_with_flags_and_vfs(rig.path(), flags, name.as_str()).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.execute_batch(include_str!("../../src/sqlite/schema/0001.sql")).unwrap();
    conn.execute_batch(
        "PRAGMA application_id = 1398162503; PRAGMA user_version = 1;
         INSERT INTO topics (id, name, retain_unconsumed, compact, compact_lag, tombstone_for,
             priorities, ageing, dedupe_window, relaxed)
         VALUES (1, 't', 0, 0, 3600000000, 86400000000, 0, 60000000, 600000000, 0)",
    )
    .unwrap();
    for n in 1..=MESSAGES {
        let payload = text(n).into_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&[0xFF, 0xFF]);
        sum.update(&(payload.len() as u64).to_le_bytes());
        sum.update(&payload);
        let total = (n * payload.len() as u64) as i64;
        conn.execute(
            "INSERT INTO messages (id, at, total, sum, priority, payload)
             VALUES (?1, 1700000000000000, ?2, ?3, 5, ?4)",
            params![1_i64 << 43 | n as i64, total, sum.finalize(), payload],
        )
        .unwrap();
    }
}

async fn texts(store: &Sqlite) -> Vec<String> {
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 1000 };
    let messages = store.execute(read).await.unwrap();
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    messages.iter().map(|message| text(message.payload.as_deref().unwrap())).collect()
}

fn expected() -> Vec<String> {
    (1..=MESSAGES).map(text).collect()
}

#[tokio::test]
async fn a_file_of_the_first_version_goes_on_whatever_interrupts_it() {
    let mut interrupted = 0;
    for changes in 0..80 {
        for end in [End::Kill, End::Cut] {
            let rig = Rig::new(changes);
            first_version(&rig);
            rig.disk.end_after(changes, end);
            interrupted += u32::from(rig.open().is_err());
            rig.disk.end(end);
            let store = rig.open().unwrap();
            assert_eq!(texts(&store).await, expected(), "{end:?} after {changes} changes");
            // What came with later versions works too.
            let put = PutState {
                key: "k".to_owned(),
                value: "v".into(),
                content_type: None,
                condition: Condition::Absent,
                ttl: None,
            };
            store.execute(put).await.unwrap();
            drop(store);
            assert_eq!(verify(&rig.config()).unwrap(), [] as [String; 0]);
        }
    }
    assert!(interrupted > 20, "only {interrupted} were interrupted");
}

#[tokio::test]
async fn a_compaction_that_is_interrupted_harms_nothing() {
    let mut interrupted = 0;
    for changes in (0..200).step_by(3) {
        let end = if changes % 2 == 0 { End::Kill } else { End::Cut };
        let rig = Rig::new(changes);
        let store = rig.open().unwrap();
        let (name, settings) = ("t".to_owned(), Settings::default());
        store.execute(PutTopic { name, settings }).await.unwrap();
        let payloads = (1..=MESSAGES).map(|n| Some(text(n).into()));
        let messages =
            payloads.map(|payload| NewMessage { payload, ..NewMessage::default() }).collect();
        store.execute(Publish { topic: "t".to_owned(), messages }).await.unwrap();
        drop(store);
        rig.disk.end_after(changes, end);
        interrupted += u32::from(compact(&rig.config()).is_err());
        rig.disk.end(end);
        assert_eq!(verify(&rig.config()).unwrap(), [] as [String; 0], "{end:?} after {changes}");
        assert_eq!(texts(&rig.open().unwrap()).await, expected(), "{end:?} after {changes}");
    }
    assert!(interrupted > 10, "only {interrupted} were interrupted");
}

//! How the server fares, as far as the store depends on it: looked at now and
//! then by the connection that listens, so nobody waits for it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio_postgres::Client;

use super::address::Address;
use crate::doctor::Database;

/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// What was seen last.
pub(crate) type Seen = Arc<Mutex<Option<Database>>>;

/// Looks at the server; what cannot be seen with the rights at hand is left out.
pub(super) async fn look(
    client: &Client,
    address: &Address,
) -> Result<Database, tokio_postgres::Error> {
    let sql = "SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
           current_setting('autovacuum') = 'on',
           h.pid, h.held, h.who,
           (SELECT relname::text FROM pg_stat_user_tables WHERE schemaname = $1
             ORDER BY n_dead_tup DESC LIMIT 1),
           coalesce((SELECT max(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = $1), 0),
           coalesce((SELECT sum(n_live_tup) FROM pg_stat_user_tables WHERE schemaname = $1), 0)::int8
         FROM (SELECT 1) one LEFT JOIN LATERAL
           (SELECT pid, who, held FROM
             (SELECT pid, coalesce(nullif(application_name, ''), usename::text, 'somebody') AS who,
                extract(epoch FROM clock_timestamp() - xact_start)::float8 AS held
              FROM pg_stat_activity
              WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
                AND backend_type = 'client backend' AND pid <> pg_backend_pid()
              UNION ALL
              SELECT NULL, 'the prepared transaction ' || gid,
                extract(epoch FROM clock_timestamp() - prepared)::float8
              FROM pg_prepared_xacts) holding
            WHERE held IS NOT NULL ORDER BY held DESC LIMIT 1) h ON true";
    let row = client.query_one(sql, &[&address.schema]).await?;
    let held: Option<f64> = row.get(4);
    let mut database = Database {
        fsync: row.get(0),
        full_page_writes: row.get(1),
        autovacuum: row.get(2),
        oldest: held.map(|held| {
            let who: String = row.get(5);
            let pid: Option<i32> = row.get(3);
            let who = pid.map_or_else(|| who.clone(), |pid| format!("{who} (process {pid})"));
            (who, Duration::from_secs_f64(held.max(0.0)))
        }),
        dead: (
            row.get::<_, Option<String>>(6).unwrap_or_default(),
            row.get::<_, i64>(7).max(0) as u64,
        ),
        live: row.get::<_, i64>(8).max(0) as u64,
        ..Database::default()
    };
    // Counting stops where more would say nothing new.
    let schema = &address.schema;
    let sql = format!(
        "SELECT (SELECT count(*) FROM (SELECT FROM \"{schema}\".inbox LIMIT 100000) few),
           (SELECT extract(epoch FROM clock_timestamp() - inserted_at)::float8
            FROM \"{schema}\".inbox ORDER BY number LIMIT 1),
           (SELECT count(*) FROM (SELECT FROM \"{schema}\".refused LIMIT 100000) few),
           (SELECT problem FROM \"{schema}\".refused ORDER BY id DESC LIMIT 1),
           (SELECT extract(epoch FROM clock_timestamp() - refused_at)::float8
            FROM \"{schema}\".refused ORDER BY id LIMIT 1)"
    );
    let row = client.query_one(&sql, &[]).await?;
    let age = |column: usize| {
        let seconds: Option<f64> = row.get(column);
        Duration::from_secs_f64(seconds.unwrap_or_default().max(0.0))
    };
    database.inbox = (row.get::<_, i64>(0).max(0) as u64, age(1));
    database.refused = (row.get::<_, i64>(2).max(0) as u64, age(4));
    database.refused_why = row.get::<_, Option<String>>(3).unwrap_or_default();
    Ok(database)
}

//! What an operator does to the store in a database: check it, and give back
//! what is not needed. Copies are made by the programs of the server.

use super::{
    address::Address,
    driver::PostgresDb,
    failure, runtime, schema,
    session::{Dialer, Session},
};
use crate::{
    Config, Error,
    store::{Db, verify::verify as read_all},
};

/// Reads everything on one snapshot, beside the work that goes on, and names
/// what is wrong: rows that fail their checksum, gaps that cannot be, rows of
/// things that are not there. Damage below that is found by `pg_amcheck`.
pub(crate) fn verify(config: &Config) -> Result<Vec<String>, Error> {
    apart(|| verify_here(config))
}

/// Whoever asks may be on a runtime of its own, which must not wait for another.
fn apart<T: Send>(run: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or(Err(Error::Closed))
}

fn verify_here(config: &Config) -> Result<Vec<String>, Error> {
    let address = known(config)?;
    let mut db = PostgresDb::new(runtime()?, Dialer::new(address), None);
    db.begin(false)?;
    // A large table is read whole, however long that takes.
    let patience = "SELECT set_config('statement_timeout', '0', true),
         set_config('idle_in_transaction_session_timeout', '0', true),
         set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true)";
    db.one(patience, &[], |_| Ok(()))?;
    let problems = read_all(&db);
    db.rollback()?;
    Ok(problems)
}

/// Gives the space of removed rows back for new ones, and the ends of tables to
/// the disk, beside the work that goes on; the bytes before and after.
pub(crate) fn compact(config: &Config) -> Result<(u64, u64), Error> {
    apart(|| compact_here(config))
}

fn compact_here(config: &Config) -> Result<(u64, u64), Error> {
    let address = known(config)?;
    runtime()?.block_on(async {
        let session = Session::open(&address).await?;
        let client = &session.client;
        let told = |error: tokio_postgres::Error| failure(&error);
        let size = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'r'";
        let size = client.prepare(size).await.map_err(told)?;
        let bytes = async || {
            let row = client.query_one(&size, &[&address.schema]).await.map_err(told)?;
            Ok::<u64, Error>(row.get::<_, i64>(0).max(0) as u64)
        };
        let before = bytes().await?;
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1";
        let tables = client.query(tables, &[&address.schema]).await.map_err(told)?;
        client.batch_execute("SET statement_timeout = 0").await.map_err(told)?;
        for table in tables {
            let table: String = table.get(0);
            let vacuum = format!("VACUUM (ANALYZE) \"{}\".\"{table}\"", address.schema);
            client.batch_execute(&vacuum).await.map_err(told)?;
        }
        Ok((before, bytes().await?))
    })
}

/// The command that makes a copy, and the one that brings it back.
pub(crate) fn backup_command(config: &Config, to: &str) -> Result<String, Error> {
    let address = Address::parse(config)?;
    Ok(format!(
        "pg_dump --format=custom --schema={} --file={to} --dbname='{}'",
        address.schema,
        address.without_password()
    ))
}

/// Where a store is already, of a version that this program knows.
fn known(config: &Config) -> Result<Address, Error> {
    config.validate()?;
    let address = Address::parse(config)?;
    let found = runtime()?.block_on(async {
        let session = Session::open(&address).await?;
        schema::check(&session.client, &address).await
    })?;
    if found == 0 {
        let problem = format!("there is no store in its schema `{}`", address.schema);
        return Err(Error::Open { path: address.shown, problem });
    }
    Ok(address)
}

//! The tables, and how an older schema becomes a newer one.

use tokio_postgres::Client;

use super::{address::Address, failure};
use crate::Error;

/// Forward only: step `n` takes a schema from version `n` to `n + 1`. A step
/// that was released is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
    include_str!("schema/0009.sql"),
    include_str!("schema/0010.sql"),
    include_str!("schema/0011.sql"),
];

/// The version this program writes.
const VERSION: u32 = MIGRATIONS.len() as u32;

/// Fails unless this role may do here what a store does.
pub(super) async fn permitted(client: &Client, address: &Address) -> Result<(), Error> {
    // Later versions change the tables, which takes who owns them; the schema may be
    // somebody else's who lets us in.
    let sql = "SELECT current_user::text, current_database()::text,
           has_database_privilege(current_database(), 'CREATE'),
           pg_get_userbyid(n.nspowner)::text,
           has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE')
             AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid
               AND c.relname = 'store' AND NOT pg_has_role(c.relowner, 'USAGE'))
         FROM (SELECT 1) one LEFT JOIN pg_namespace n ON n.nspname = $1";
    let row = client.query_one(sql, &[&address.schema]).await.map_err(|e| failure(&e))?;
    let (role, database): (String, String) = (row.get(0), row.get(1));
    let schema = &address.schema;
    let problem = match row.get::<_, Option<String>>(3) {
        None if row.get(2) => return Ok(()),
        None => format!(
            "role `{role}` may not make the schema `{schema}`: \
             `GRANT CREATE ON DATABASE \"{database}\" TO \"{role}\"`"
        ),
        Some(_) if row.get(4) => return Ok(()),
        Some(owner) => format!(
            "schema `{schema}`, or the tables in it, belong to role `{owner}` or another and not \
             to `{role}`: connect as their owner, `GRANT \"{owner}\" TO \"{role}\"`, or name \
             another `schema`"
        ),
    };
    Err(Error::Unfit { place: address.shown.clone(), problem })
}

/// Brings the schema to [`VERSION`], one process at a time.
pub(super) async fn migrate(client: &Client, address: &Address) -> Result<(), Error> {
    client.batch_execute("BEGIN").await.map_err(|e| failure(&e))?;
    let migrated = steps(client, address).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await.map_err(|e| failure(&e));
    migrated.and(ended)
}

async fn steps(client: &Client, address: &Address) -> Result<(), Error> {
    let schema = &address.schema;
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('selvedge ' || $1, 0))";
    client.execute(lock, &[schema]).await.map_err(|e| failure(&e))?;
    let found = version(client, address).await?;
    if found == VERSION {
        return Ok(());
    }
    let mut sql = if found == 0 {
        // Of a schema that is there, not even the question is for everybody.
        let there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        let there = client.query_one(there, &[schema]).await.map_err(|e| failure(&e))?;
        let make =
            if there.get(0) { String::new() } else { format!("CREATE SCHEMA \"{schema}\";") };
        format!("{make} SET LOCAL search_path = \"{schema}\";")
    } else {
        String::new()
    };
    sql.extend(MIGRATIONS.iter().skip(found as usize).copied());
    sql.push_str(&format!("UPDATE store SET schema = {VERSION};"));
    client.batch_execute(&sql).await.map_err(|e| failure(&e))
}

/// Fails unless the schema is one that this program writes; its version, 0 for none.
pub(super) async fn check(client: &Client, address: &Address) -> Result<u32, Error> {
    version(client, address).await
}

/// The version of the schema: 0 if there is none.
async fn version(client: &Client, address: &Address) -> Result<u32, Error> {
    let tables = "SELECT count(*), count(*) FILTER (WHERE tablename = 'store')
         FROM pg_tables WHERE schemaname = $1";
    let row = client.query_one(tables, &[&address.schema]).await.map_err(|e| failure(&e))?;
    let (tables, store): (i64, i64) = (row.get(0), row.get(1));
    if tables == 0 {
        return Ok(0);
    }
    if store == 0 {
        let problem = format!("its schema `{}` belongs to another program", address.schema);
        return Err(Error::Open { path: address.shown.clone(), problem });
    }
    let sql = format!("SELECT schema FROM \"{}\".store", address.schema);
    let row = client.query_one(&sql, &[]).await.map_err(|e| failure(&e))?;
    let found = u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX);
    if found > VERSION {
        return Err(Error::Newer { found, known: VERSION });
    }
    Ok(found)
}

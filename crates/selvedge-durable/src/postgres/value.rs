//! Values on their way to the server and back, alone and as columns of many.

use std::error::Error as StdError;

use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::{Error, store::driver::Value};

type Failure = Box<dyn StdError + Sync + Send>;

/// A value that waits to be sent, or a column of such values.
#[derive(Clone, Debug)]
pub(super) enum Owned {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl Owned {
    pub(super) fn of(value: &Value<'_>) -> Result<Self, Error> {
        value.check()?;
        Ok(match *value {
            Value::Null => Self::Null,
            Value::Int(int) => Self::Int(int),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Blob(bytes) => Self::Blob(bytes.to_owned()),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + 8,
            Self::Blob(bytes) => bytes.len() + 8,
            _ => 8,
        }
    }

    pub(super) fn parameter(&self) -> &(dyn ToSql + Sync) {
        self
    }
}

pub(super) fn parameter<'a>(value: &'a Value<'a>) -> &'a (dyn ToSql + Sync + 'a) {
    value
}

/// Rows of parameters as columns of parameters.
pub(super) fn columns(rows: Vec<Vec<Owned>>) -> Vec<Owned> {
    let width = rows.first().map_or(0, Vec::len);
    let mut columns: Vec<Vec<Owned>> = (0..width).map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns.into_iter().map(column).collect()
}

fn column(values: Vec<Owned>) -> Owned {
    match values.iter().find(|value| !matches!(value, Owned::Null)) {
        Some(Owned::Text(_)) => {
            let text = |value| if let Owned::Text(text) = value { Some(text) } else { None };
            Owned::Texts(values.into_iter().map(text).collect())
        }
        Some(Owned::Blob(_)) => {
            let blob = |value| if let Owned::Blob(bytes) = value { Some(bytes) } else { None };
            Owned::Blobs(values.into_iter().map(blob).collect())
        }
        _ => {
            let int = |value| if let Owned::Int(int) = value { Some(int) } else { None };
            Owned::Ints(values.into_iter().map(int).collect())
        }
    }
}

/// The statement that does for arrays of parameters what `sql` does for one of
/// each: an insert of exactly its parameters, or a delete by equalities.
pub(super) fn merged(sql: &str, types: &[Type]) -> Option<String> {
    let numbered = |from: &str| -> bool {
        let mut places = from.split(',').map(str::trim);
        let expected = (1..=types.len()).map(|number| format!("?{number}"));
        expected.eq(places.by_ref().map(str::to_owned))
    };
    let arrays: Option<Vec<String>> = (1..)
        .zip(types)
        .map(|(number, kind)| match *kind {
            Type::INT8 => Some(format!("?{number}::int8[]")),
            Type::TEXT => Some(format!("?{number}::text[]")),
            Type::BYTEA => Some(format!("?{number}::bytea[]")),
            _ => None,
        })
        .collect();
    let arrays = arrays?.join(", ");
    if sql.starts_with("INSERT") {
        let (before, rest) = sql.split_once("VALUES (")?;
        let (places, after) = rest.split_once(')')?;
        // Without the condition, `ON CONFLICT` would be read as one of a join.
        return numbered(places)
            .then(|| format!("{before}SELECT * FROM unnest({arrays}) WHERE true{after}"));
    }
    let (table, conditions) = sql.strip_prefix("DELETE FROM ")?.split_once(" WHERE ")?;
    let (columns, places): (Vec<&str>, Vec<&str>) =
        conditions.split(" AND ").map(|one| one.split_once(" = ")).collect::<Option<_>>()?;
    numbered(&places.join(",")).then(|| {
        let columns = columns.join(", ");
        format!("DELETE FROM {table} WHERE ({columns}) IN (SELECT * FROM unnest({arrays}))")
    })
}

impl ToSql for Owned {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Failure> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(int) => Value::Int(*int).to_sql(kind, out),
            Self::Text(text) => Value::Text(text).to_sql(kind, out),
            Self::Blob(bytes) => Value::Blob(bytes).to_sql(kind, out),
            // A column of nothing but nulls may stand for any kind.
            Self::Ints(ints) if *kind == Type::INT8_ARRAY => ints.to_sql(kind, out),
            Self::Ints(ints) => {
                let nulls: Vec<Option<i64>> = vec![None; ints.len()];
                nulls.to_sql(kind, out)
            }
            Self::Texts(texts) => texts.to_sql(kind, out),
            Self::Blobs(blobs) => blobs.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Failure> {
        match *self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(int) => match *kind {
                Type::INT8 => int.to_sql(kind, out),
                Type::INT4 => i32::try_from(int)?.to_sql(kind, out),
                Type::INT2 => i16::try_from(int)?.to_sql(kind, out),
                Type::BOOL => (int != 0).to_sql(kind, out),
                _ => Err(format!("a number where {kind} is wanted").into()),
            },
            Self::Text(text) => text.to_sql(kind, out),
            Self::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(match *kind {
            Type::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Self::Int(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => Self::Int(bool::from_sql(kind, raw)?.into()),
            Type::BYTEA => Self::Blob(<&[u8]>::from_sql(kind, raw)?),
            _ => Self::Text(<&str>::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failure> {
        Ok(Self::Null)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(
            *kind,
            Type::INT8
                | Type::INT4
                | Type::INT2
                | Type::BOOL
                | Type::BYTEA
                | Type::TEXT
                | Type::VARCHAR
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_one_only_where_that_means_the_same() {
        let int = [Type::INT8, Type::TEXT];
        assert_eq!(
            merged("INSERT INTO t (a, b) VALUES (?1, ?2)", &int).as_deref(),
            Some("INSERT INTO t (a, b) SELECT * FROM unnest(?1::int8[], ?2::text[]) WHERE true")
        );
        let upsert = "INSERT INTO t (a, b) VALUES (?1, ?2) ON CONFLICT (a) DO UPDATE SET b = 1";
        let one = merged(upsert, &int).expect("an insert");
        assert!(one.ends_with("WHERE true ON CONFLICT (a) DO UPDATE SET b = 1"), "{one}");
        assert_eq!(
            merged("DELETE FROM t WHERE a = ?1 AND b = ?2", &int).as_deref(),
            Some("DELETE FROM t WHERE (a, b) IN (SELECT * FROM unnest(?1::int8[], ?2::text[]))")
        );
        for other in [
            "INSERT INTO t (a, b, c) VALUES (?1, ?2, 0)",
            "INSERT INTO t (a, b) VALUES (?2, ?1)",
            "DELETE FROM t WHERE a = ?1 AND b <= ?2",
            "UPDATE t SET a = ?1 WHERE b = ?2",
        ] {
            assert_eq!(merged(other, &int), None, "{other}");
        }
    }
}

//! How a message lies in its row.

use bytes::Bytes;

use super::driver::Row;
use crate::{Error, topic::Message};

/// Bits of a message's row id that hold the position.
const POSITION_BITS: u32 = 43;

/// The row id of a message.
pub(super) const fn row_id(topic: i64, position: u64) -> i64 {
    topic << POSITION_BITS | position as i64
}

/// The topic in a row id.
pub(super) const fn topic(id: i64) -> i64 {
    id >> POSITION_BITS
}

/// The position in a row id.
pub(super) const fn position(id: i64) -> u64 {
    (id & ((1 << POSITION_BITS) - 1)) as u64
}

/// Headers as length-prefixed names and values.
pub(super) fn encode_headers(headers: &[(String, String)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let mut out = Vec::with_capacity(bytes);
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    Some(out)
}

/// The inverse; `None` if these are not encoded headers.
pub(super) fn decode_headers(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut text = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some((String::from_utf8(text.to_vec()).ok()?, rest.is_empty()))
    };
    let mut headers = Vec::new();
    loop {
        let (name, _) = text()?;
        let (value, last) = text()?;
        headers.push((name, value));
        if last {
            return Some(headers);
        }
    }
}

/// What a row says about its own content, so that a flipped bit is noticed.
pub(super) fn checksum(key: Option<&str>, headers: Option<&[u8]>, payload: Option<&[u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [key.map(str::as_bytes), headers, payload] {
        match part {
            Some(bytes) => {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
            None => hasher.update(&[0xFF]),
        }
    }
    hasher.finalize()
}

/// Columns of [`message`], in order, from any table that holds messages.
pub(crate) const COLUMNS: &str = "at, sum, priority, key, headers, payload";

/// The message whose [`COLUMNS`] begin at column `at` of `row`.
pub(crate) fn message(row: &impl Row, position: u64, at: usize) -> Result<Message, Error> {
    let sum: u32 = row.get(at + 1)?;
    let key: Option<&str> = row.get(at + 3)?;
    let headers: Option<&[u8]> = row.get(at + 4)?;
    let payload: Option<&[u8]> = row.get(at + 5)?;
    let damaged = || Error::Corrupt { what: format!("message {position} fails its checksum") };
    if checksum(key, headers, payload) != sum {
        return Err(damaged());
    }
    Ok(Message {
        position,
        at: row.get(at)?,
        key: key.map(str::to_owned),
        headers: match headers {
            Some(bytes) => decode_headers(bytes).ok_or_else(damaged)?,
            None => Vec::new(),
        },
        payload: payload.map(Bytes::copy_from_slice),
        priority: row.get(at + 2)?,
    })
}

/// Bytes that count towards limits and retention.
pub(super) fn message_bytes(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.key.as_ref().map_or(0, String::len)
        + headers
        + message.payload.as_ref().map_or(0, Bytes::len)
}

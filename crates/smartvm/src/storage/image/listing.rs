//! A bucket's listing: XML as S3 has it.

use quick_xml::Reader;
use quick_xml::events::Event;
use url::Url;

use crate::storage::download::Downloader;
use crate::{Error, ErrorKind, Result};

const MOST_PAGE_BYTES: u64 = 8 << 20;
/// A page holds up to 1000 names.
const MOST_PAGES: usize = 200;

/// What a listing names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) keys: Vec<String>,
    pub(super) prefixes: Vec<String>,
    /// What to ask for the rest with.
    next: Option<String>,
}

/// All that begins with `prefix`; with `by_directory` only the next part of it.
pub(super) async fn list(
    downloader: &Downloader,
    bucket: &str,
    prefix: &str,
    by_directory: bool,
) -> Result<Listing> {
    let mut all = Listing::default();
    for _ in 0..MOST_PAGES {
        let mut url = Url::parse(bucket).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("{bucket:?} is no bucket's URL")).because(e)
        })?;
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("list-type", "2")
                .append_pair("prefix", prefix);
            if by_directory {
                query.append_pair("delimiter", "/");
            }
            if let Some(next) = &all.next {
                query.append_pair("continuation-token", next);
            }
        }
        let page = downloader.text(url.as_str(), MOST_PAGE_BYTES).await?;
        let page = parse(&page.text).map_err(|what| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the listing of {bucket} is damaged: {what}"),
            )
        })?;
        all.keys.extend(page.keys);
        all.prefixes.extend(page.prefixes);
        all.next = page.next;
        if all.next.is_none() {
            return Ok(all);
        }
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("the listing of {bucket} doesn't end"),
    ))
}

pub(super) fn parse(text: &str) -> Result<Listing, String> {
    let mut reader = Reader::from_str(text);
    let (mut listing, mut path) = (Listing::default(), Vec::<String>::new());
    let (mut content, mut truncated, mut root) = (String::new(), false, false);
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_owned();
                root |= path.is_empty() && name == "ListBucketResult";
                if path.len() > 16 {
                    return Err("it is nested too deeply".into());
                }
                path.push(name);
                content.clear();
            }
            Event::Text(text) => content += &text,
            Event::CData(text) => content += &text,
            Event::GeneralRef(reference) => {
                let letter = match &*reference {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => reference
                        .resolve_char_ref()
                        .map_err(|e| e.to_string())?
                        .ok_or("an entity is unknown")?,
                };
                content.push(letter);
            }
            Event::End(_) => {
                let text = std::mem::take(&mut content);
                let names: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
                match names.as_slice() {
                    ["Contents", "Key"] => listing.keys.push(text),
                    ["CommonPrefixes", "Prefix"] => listing.prefixes.push(text),
                    ["NextContinuationToken"] => listing.next = Some(text),
                    ["IsTruncated"] => truncated = text.trim() == "true",
                    _ => {}
                }
                path.pop();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if !path.is_empty() {
        return Err("it ends too early".into());
    }
    if !root {
        return Err("it is no ListBucketResult".into());
    }
    if truncated && listing.next.is_none() {
        return Err("it goes on, but doesn't say how".into());
    }
    if !truncated {
        listing.next = None;
    }
    Ok(listing)
}

//! A document of any of the three formats as one JSON value, with duplicate keys refused.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Format;
use super::problem::Problem;

/// Reads `text`. Errors name line and column, and never quote the text: it may hold secrets.
pub(super) fn parse(text: &str, format: Format) -> Result<Value, Problem> {
    let result = match format {
        Format::Json => {
            let mut from = serde_json::Deserializer::from_str(text);
            Document
                .deserialize(&mut from)
                .and_then(|value| from.end().map(|()| value))
                .map_err(|error| error.to_string())
        }
        Format::Toml => toml::Deserializer::parse(text)
            .and_then(|from| Document.deserialize(from))
            .map_err(|error| at_line(text, &error)),
        Format::Yaml => yaml(text),
    };
    result.map_err(|message| {
        Problem::new(
            "",
            format!("isn't valid {format}: {message}"),
            "a document that parses",
        )
    })
}

fn yaml(text: &str) -> Result<Value, String> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |from| {
        Document.deserialize(from)
    })
    .map_err(|error| error.to_string())
}

/// A TOML error's own words quote the line it is about, so they are put together anew.
fn at_line(text: &str, error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("{} at line {line} column {column}", error.message())
        }
        None => error.message().to_owned(),
    }
}

struct Document;

impl<'de> DeserializeSeed<'de> for Document {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("infinity and NaN aren't allowed"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(Document)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(Document)?;
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "the field `{key}` is given twice"
                )));
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

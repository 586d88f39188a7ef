//! The data of a VM's metadata service, at any time of its run.

use serde_json::Value;

use super::held::Held;
use super::{MicroVm, finish};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::client::{MAX_REQUEST_BYTES, Method, Request};
use crate::firecracker::model::METADATA;
use crate::rundir::{Operation, VmState};

impl MicroVm {
    /// What its guest can read of the metadata service; an empty object before anything was set.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] if it doesn't run or has no metadata service.
    pub async fn metadata(&self) -> Result<Value> {
        let held = self.begin(Operation::Metadata).await?;
        has_service(held.state(), self.id().as_str())?;
        self.client().ask(&Request::get(METADATA)).await
    }

    /// Replaces all of it by this object, of at most 51,200 bytes. What is begun is brought to its
    /// end even if this future is dropped.
    ///
    /// # Errors
    /// As [`MicroVm::metadata`]; [`ErrorKind::Invalid`] for what isn't an object or too large.
    pub async fn set_metadata(&self, data: &Value) -> Result<()> {
        let mut held = self.begin(Operation::Metadata).await?;
        has_service(held.state(), self.id().as_str())?;
        fits(data)?;
        let request = Request::new(Method::Put, METADATA, data)?;
        held.change().spec.metadata = Some(data.clone());
        finish::even_if_dropped(told(self.client(), request, held)).await
    }

    /// Changes some of it, as JSON Merge Patch (RFC 7396) has it: objects are merged, `null`
    /// removes, all else replaces. What is begun is brought to its end even if this future is
    /// dropped.
    ///
    /// # Errors
    /// As [`MicroVm::set_metadata`].
    pub async fn patch_metadata(&self, patch: &Value) -> Result<()> {
        let mut held = self.begin(Operation::Metadata).await?;
        has_service(held.state(), self.id().as_str())?;
        let mut client = self.client();
        let mut whole: Value = client.ask(&Request::get(METADATA)).await?;
        // Firecracker patches only what was set before, and shows as empty what wasn't.
        let method = match whole.as_object().is_none_or(serde_json::Map::is_empty) {
            true => Method::Put,
            false => Method::Patch,
        };
        fits(patch)?;
        merge(&mut whole, patch);
        fits(&whole)?;
        let body = if method == Method::Put { &whole } else { patch };
        let request = Request::new(method, METADATA, body)?;
        held.change().spec.metadata = Some(whole);
        finish::even_if_dropped(told(client, request, held)).await
    }
}

/// Tells Firecracker, then writes down what was changed.
async fn told(mut client: Client, request: Request, held: Held) -> Result<()> {
    client.send(&request).await?;
    held.done().await
}

fn has_service(state: &VmState, id: &str) -> Result<()> {
    match state.spec.mmds {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::WrongState,
            format!("VM {id} has no metadata service"),
        )
        .hint("it is made before boot: give its spec `mmds`")),
    }
}

fn fits(data: &Value) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::new(
            ErrorKind::Invalid,
            format!("the metadata {what}"),
        ))
    };
    if !data.is_object() {
        return refuse("isn't a JSON object".into());
    }
    let bytes = data.to_string().len();
    if bytes > MAX_REQUEST_BYTES {
        return refuse(format!(
            "has {bytes} bytes, and {MAX_REQUEST_BYTES} are allowed"
        ));
    }
    Ok(())
}

fn merge(whole: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *whole = patch.clone();
        return;
    };
    if !whole.is_object() {
        *whole = Value::Object(Default::default());
    }
    if let Value::Object(fields) = whole {
        for (name, value) in patch {
            match value {
                Value::Null => drop(fields.shift_remove(name)),
                value => merge(fields.entry(name).or_insert(Value::Null), value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_rfc_7396_says() {
        let mut whole = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut whole,
            &json!({"a": {"b": null, "e": {"f": null}}, "d": "x"}),
        );
        assert_eq!(whole, json!({"a": {"c": 2, "e": {}}, "d": "x"}));
    }
}

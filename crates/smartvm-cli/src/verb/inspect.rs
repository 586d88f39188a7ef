use serde_json::{Value, json};
use smartvm::rundir::Ended;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use super::Ids;
use crate::output;

pub(crate) fn run(smartvm: &SmartVm, ids: &Ids) -> Result<u8> {
    let mut found = Vec::new();
    for id in ids.resolve(smartvm)? {
        found.push(match smartvm.get(&id) {
            Ok(vm) => {
                let state = vm.state()?;
                let mut value = as_value(&state)?;
                if let Value::Object(fields) = &mut value {
                    fields.insert("runDir".into(), json!(vm.run_dir().path()));
                    fields.shift_insert(0, "id".into(), json!(id));
                }
                value
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                ended(&smartvm.runtime().records().get(&id)?)
            }
            Err(e) => return Err(e),
        });
    }
    output::value(&found)?;
    Ok(0)
}

/// The record of an ended VM, with the reason in words too.
pub(super) fn ended(ended: &Ended) -> Value {
    let mut value = as_value(ended).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("reasonText".into(), json!(ended.reason.to_string()));
    }
    value
}

fn as_value(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|e| Error::new(ErrorKind::Io, "encoding the result").because(e))
}

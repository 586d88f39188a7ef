use clap::Args;
use comfy_table::Table;
use comfy_table::presets;
use smartvm::rundir::{Ended, VmState};
use smartvm::{Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm ps
  smartvm ps --all --label role=web
  smartvm --json ps | jq -r '.[].id'")]
pub(crate) struct PsArgs {
    /// Those that have ended, too
    #[arg(short, long)]
    all: bool,
    /// Only those with this label
    #[arg(long, value_name = "K=V")]
    label: Vec<String>,
}

/// One line of the list.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    state: String,
    created_at: String,
    vcpus: Option<u8>,
    memory_mib: Option<u64>,
    jailed: Option<bool>,
    pid: Option<u32>,
    note: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
}

pub(crate) fn run(smartvm: &SmartVm, args: &PsArgs) -> Result<u8> {
    let mut rows: Vec<Row> = Vec::new();
    for (id, state) in smartvm.list()? {
        rows.push(match state {
            Ok(state) => live(id.to_string(), state),
            Err(e) => Row::broken(id.to_string(), e.to_string()),
        });
    }
    if args.all {
        rows.extend(smartvm.ended()?.into_iter().map(ended));
    }
    rows.retain(|row| args.label.iter().all(|label| row.has_label(label)));
    if output::json() {
        output::value(&rows)?;
        return Ok(0);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ID", "STATE", "VCPUS", "MEMORY", "JAIL", "PID", "CREATED", "NOTE",
    ]);
    for row in rows {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        table.add_row([
            row.id,
            row.state,
            or_dash(row.vcpus.map(|n| n.to_string())),
            or_dash(row.memory_mib.map(|n| format!("{n} MiB"))),
            or_dash(
                row.jailed
                    .map(|jailed| if jailed { "yes" } else { "no" }.into()),
            ),
            or_dash(row.pid.map(|pid| pid.to_string())),
            row.created_at,
            row.note.unwrap_or_default(),
        ]);
    }
    output::line(table.to_string())?;
    Ok(0)
}

impl Row {
    fn broken(id: String, note: String) -> Self {
        Self {
            id,
            state: "unreadable".into(),
            created_at: String::new(),
            vcpus: None,
            memory_mib: None,
            jailed: None,
            pid: None,
            note: Some(note),
            labels: Default::default(),
        }
    }

    fn has_label(&self, wanted: &str) -> bool {
        match wanted.split_once('=') {
            Some((key, value)) => self.labels.get(key).is_some_and(|found| found == value),
            None => self.labels.contains_key(wanted),
        }
    }
}

fn live(id: String, state: VmState) -> Row {
    let jailed = Some(state.jailed());
    Row {
        id,
        state: state.state.to_string(),
        created_at: state.created_at,
        vcpus: Some(state.spec.machine_config.vcpu_count),
        memory_mib: Some(state.spec.machine_config.mem_size_mib),
        jailed,
        pid: state.vmm.map(|vmm| vmm.pid),
        note: None,
        labels: state.spec.labels,
    }
}

fn ended(ended: Ended) -> Row {
    Row {
        id: ended.id.to_string(),
        state: ended.state.to_string(),
        created_at: ended.created_at,
        vcpus: None,
        memory_mib: None,
        jailed: None,
        pid: None,
        note: Some(ended.reason.to_string()),
        labels: ended.labels,
    }
}

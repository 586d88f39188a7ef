//! CPU templates by name, and the processors that they are for.

/// What Firecracker says of one that is for other models of the same maker.
pub(crate) const REFUSAL: &str =
    "Failed to get CPU template: The current CPU model is not permitted to apply the CPU template.";

/// A template for processors of this host's maker.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    /// A flag of processors that it fits, which it hides.
    pub(crate) hides: &'static str,
    /// Whether it fits this host's processor.
    pub(crate) fits: bool,
}

impl Template {
    /// The emulated host's processor says that it is an EPYC of the third generation, so that
    /// there is a template for it.
    pub(crate) fn of_this_host() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let value = |name: &str| {
            let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(key, _)| key.trim() == name);
            found.next().unwrap().1.trim().to_owned()
        };
        let model = format!("{}/{}", value("cpu family"), value("model"));
        match value("vendor_id").as_str() {
            "AuthenticAMD" => Self {
                name: "T2A",
                hides: "svm",
                fits: model == "25/1",
            },
            _ => Self {
                name: "T2",
                hides: "avx512f",
                fits: ["6/85", "6/106"].contains(&model.as_str()),
            },
        }
    }
}

//! The examples in the documents are what they say.

use smartvm::spec::{Format, MicroVmSpec, SmartVmOptions, load};
use smartvm::validate::{ValidateContext, validate, validate_options};

const PAGE: &str = include_str!("../../../../docs/spec.md");

/// The fenced blocks of a language, in order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_spec_in_three_formats_is_one_valid_spec() {
    let mut specs: Vec<MicroVmSpec> = Vec::new();
    for (language, format) in [
        ("json", Format::Json),
        ("toml", Format::Toml),
        ("yaml", Format::Yaml),
    ] {
        let block = blocks(PAGE, language)[0];
        specs.push(load(block, format).unwrap_or_else(|them| panic!("{language}: {them}")));
    }
    assert_eq!(specs[0], specs[1]);
    assert_eq!(specs[0], specs[2]);
    validate(&specs[0], &ValidateContext::default()).unwrap();
}

#[test]
fn the_options_are_valid() {
    let options: SmartVmOptions = load(blocks(PAGE, "toml")[1], Format::Toml).unwrap();
    validate_options(&options).unwrap();
}

//! The bucket's listing.

use proptest::prelude::*;

use super::super::{listing, preset};
use super::*;

#[test]
fn a_listing_of_100000_keys_is_read_and_a_damaged_one_refused() {
    let keys: Vec<_> = (0..100_000)
        .map(|n| format!("firecracker-ci/v1.9/x86_64/vmlinux-5.{n}"))
        .collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let listing = listing::parse(&page(&keys, &[])).unwrap();
    assert_eq!(listing.keys.len(), 100_000);
    let mut keys = listing.keys;
    let prefix = "firecracker-ci/v1.9/x86_64/";
    assert_eq!(preset::newest("v1.9", prefix, &keys), None);
    keys.push(format!("{prefix}ubuntu-24.04.ext4"));
    let chosen = preset::newest("v1.9", prefix, &keys).unwrap();
    assert!(chosen.kernel.ends_with("vmlinux-5.99999"));
    let escaped = page(&["a&amp;b&#65;"], &[]);
    assert_eq!(listing::parse(&escaped).unwrap().keys, ["a&bA"]);
    for damaged in [
        "",
        "<html></html>",
        "<ListBucketResult>",
        "<ListBucketResult><a></b></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult>&unknown;</ListBucketResult>",
    ] {
        assert!(listing::parse(damaged).is_err(), "{damaged}");
    }
}

#[tokio::test]
async fn a_listing_of_several_pages_is_read_to_its_end_and_an_endless_one_is_not() {
    let server = Server::start().await;
    let bucket = server.url("/b");
    let first = "/b?list-type=2&prefix=p";
    let truncated = |key: &str, next: &str| {
        let more = format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"
        );
        page(&[key], &[]).replace("<IsTruncated>false</IsTruncated>", &more)
    };
    server
        .put(first, truncated("one", "a/b="))
        .put(
            &format!("{first}&continuation-token=a%2Fb%3D"),
            truncated("two", "c"),
        )
        .put(
            &format!("{first}&continuation-token=c"),
            page(&["three"], &[]),
        );
    let listed = listing::list(&quick(), &bucket, "p", false).await.unwrap();
    assert_eq!(listed.keys, ["one", "two", "three"]);
    server.put(
        &format!("{first}&continuation-token=c"),
        truncated("x", "c"),
    );
    let endless = listing::list(&quick(), &bucket, "p", false).await;
    let endless = endless.unwrap_err().to_string();
    assert!(endless.contains("doesn't end"), "{endless}");
}

proptest! {
    #[test]
    fn a_listing_of_any_text_is_no_panic(text in "[<>/&;a-zA-Z\\[\\]! \"=]{0,200}") {
        let _any = listing::parse(&text);
        let _any = listing::parse(&format!("<ListBucketResult>{text}</ListBucketResult>"));
    }
}

//! How many are kept, and where.

use super::*;

#[tokio::test]
async fn more_than_may_be_stored_is_evicted_with_a_warning() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let images = images(&server, dir.path());
    let path = dir.path().join("manifest.json");
    std::fs::write(dir.path().join("k"), kernel(X86, "k")).unwrap();
    std::fs::write(dir.path().join("r"), "root").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let tell: Tell = Arc::new(move |event| kept.lock().unwrap().push(event));
    for id in ["one", "two", "three"] {
        let text = manifest(id, "x86_64", "{\"path\":\"k\"}", "{\"path\":\"r\"}");
        std::fs::write(&path, text).unwrap();
        images.ensure(&by_path(&path), &tell).await.unwrap();
    }
    let names: Vec<_> = images
        .store()
        .list()
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(names, ["three", "two"]);
    let told = told.lock().unwrap();
    assert!(matches!(&told[..], [Event::Store(store::Event::Evicted(one))] if one.name == "one"));
}

#[tokio::test]
async fn the_orchestrators_options_say_where_base_images_are_and_how_many() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let cache = dir.path().join("elsewhere");
    std::fs::write(dir.path().join("k"), kernel(X86, "k")).unwrap();
    std::fs::write(dir.path().join("r"), "root").unwrap();
    let path = dir.path().join("manifest.json");
    let mut options = crate::spec::SmartVmOptions::builder()
        .base_image_cache_dir(&cache)
        .max_stored_base_images(1)
        .base_image_manifest_path(&path)
        .build();
    let open = |options: &crate::spec::SmartVmOptions| {
        let options = crate::orchestrator::base_image_options(options);
        BaseImages::open(options, dir.path().join("verified"), quick(), None).unwrap()
    };
    let hosted = EnsureBaseImageOptions::builder()
        .preset(BaseImagePreset::Hosted)
        .build();
    for id in ["one", "two"] {
        let text = manifest(id, "x86_64", "{\"path\":\"k\"}", "{\"path\":\"r\"}");
        std::fs::write(&path, text).unwrap();
        open(&options).ensure(&hosted, &silent()).await.unwrap();
    }
    let stored = open(&options).store().list().unwrap();
    assert_eq!(stored.len(), 1, "one at most, and there");
    assert!(cache.join("two").is_dir());
    options.base_image_manifest_path = None;
    options.base_image_manifest_url = Some(server.url("/none"));
    let asked = open(&options).ensure(&hosted, &silent()).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::NotFound);
    assert_eq!(server.seen("/none").len(), 1);
}

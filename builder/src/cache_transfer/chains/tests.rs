//! What is written is found again, and what was written by others is not trusted.

use super::*;

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn blob(text: &str) -> LayerBlob {
    LayerBlob {
        descriptor: Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", text.as_bytes()),
        diff_id: DiffId(digest(&format!("diff of {text}"))),
        created: Timestamp::from_unix(7, 0),
    }
}

fn known(outputs: &[Option<&[&str]>]) -> Known<LayerBlob> {
    Known {
        identity: None,
        outputs: outputs
            .iter()
            .map(|stack| stack.map(|layers| layers.iter().map(|text| blob(text)).collect()))
            .collect(),
        created: Timestamp::from_unix(5, 0),
    }
}

fn all(outputs: u32) -> BTreeSet<u32> {
    (0..outputs).collect()
}

fn keys() -> Keys<LayerBlob> {
    let mut keys = Keys::default();
    keys.records
        .insert(digest("run"), known(&[Some(&["base", "run"])]));
    keys.records
        .insert(digest("more"), known(&[Some(&["base", "run", "more"])]));
    keys.records
        .insert(digest("two"), known(&[Some(&["base", "x"]), Some(&[])]));
    let forced = Known {
        identity: Some(digest("fresh")),
        ..known(&[Some(&["f"])])
    };
    keys.records.insert(digest("forced"), forced);
    keys.records.insert(digest("half"), known(&[None, Some(&["y"])]));
    keys.records.insert(digest("gone"), known(&[None]));
    keys.aliases.insert(digest("name of more"), digest("more"));
    keys.aliases.insert(digest("name of gone"), digest("gone"));
    let of = |text: &str| MadeFrom::Result(digest(text));
    let content = MadeFrom::ContentOf(digest("gone"));
    keys.made = BTreeMap::from([
        (digest("run"), vec![of("image")]),
        (digest("gone"), vec![of("image"), of("fresh")]),
        (digest("more"), vec![of("run"), content, MadeFrom::Content]),
        (digest("two"), vec![of("more")]),
        (digest("unused"), vec![of("two")]),
    ]);
    keys
}

fn read(config: &CacheConfig, layers: &[LayerBlob]) -> ReadCache {
    let text = serde_json::to_vec(config).unwrap();
    let blobs = layers
        .iter()
        .map(|layer| (layer.descriptor.digest.clone(), layer.clone()))
        .collect();
    ReadCache::new(CacheConfig::parse(&text).unwrap(), &blobs).unwrap()
}

#[test]
fn what_was_written_is_found_again() {
    let keys = keys();
    let (config, layers) = write_config(&keys);
    let cache = read(&config, &layers);
    for name in ["run", "more", "forced"] {
        assert_eq!(
            cache.find(&digest(name), 1, &all(1)).as_ref(),
            keys.records.get(&digest(name)),
            "{name}"
        );
    }
    assert_eq!(
        cache.find(&digest("two"), 2, &all(2)).as_ref(),
        keys.records.get(&digest("two"))
    );
    assert_eq!(cache.find(&digest("two"), 3, &all(3)), None, "an output too many");
    assert_eq!(cache.alias(&digest("name of more")), Some(&digest("more")));
    assert_eq!(
        cache.find(&digest("half"), 2, &all(2)),
        None,
        "an output that is not known"
    );
    assert_eq!(
        cache.find(&digest("half"), 2, &BTreeSet::from([1])).as_ref(),
        keys.records.get(&digest("half")),
        "the other one is enough where nobody looks at the first"
    );
    assert_eq!(cache.find(&digest("gone"), 1, &all(0)), None);
    assert_eq!(cache.alias(&digest("name of gone")), None);
    assert_eq!(
        cache.find(&digest("image"), 1, &all(1)),
        None,
        "the key of an input without a result"
    );
    assert_eq!(
        cache.find(&digest("fresh"), 1, &all(1)),
        None,
        "an identity is no key"
    );
}

#[test]
fn a_record_leads_to_all_it_was_made_from_as_buildkits_does() {
    let (config, _) = write_config(&keys());
    let at = |digest: &Digest| config.records.iter().find(|record| record.digest == *digest);
    let links = |name: &str| -> Vec<Vec<&Digest>> {
        let record = at(&digest(name)).unwrap();
        let digest_of = |link: &CacheInput| &config.records[usize::try_from(link.link).unwrap()].digest;
        let inputs = record.inputs.iter();
        inputs
            .map(|links| links.iter().map(digest_of).collect())
            .collect()
    };
    let content = content_digest(&digest("more"));
    assert_eq!(
        links("more"),
        [
            vec![&digest("run")],
            vec![&digest("gone"), &content],
            vec![&content]
        ],
        "what counts by content leads to the content too, and a directory of the client only there"
    );
    assert_eq!(links("gone"), [[&digest("image")], [&digest("fresh")]]);
    assert_eq!(links("fresh"), [[&digest("forced")]]);
    let bare = [at(&content), at(&digest("gone")), at(&digest("image"))].map(Option::unwrap);
    assert!(bare.iter().all(|record| record.results.is_empty()), "{bare:?}");
    assert!(
        at(&digest("unused")).is_none(),
        "nothing that is kept was made from it"
    );
    assert!(config.check().is_ok());
}

#[test]
fn layers_are_shared_and_sorted_and_the_same_keys_make_the_same_bytes() {
    let (config, layers) = write_config(&keys());
    assert_eq!(config.layers.len(), 6, "base, run, more, x, f, y");
    let order: Vec<_> = config
        .layers
        .iter()
        .map(|layer| (&layer.blob, layer.parent))
        .collect();
    assert!(order.is_sorted());
    assert!(
        layers
            .iter()
            .zip(&config.layers)
            .all(|(blob, layer)| blob.descriptor.digest == layer.blob)
    );
    assert!(config.records.is_sorted_by_key(|record| &record.digest));
    assert_eq!(write_config(&keys()).0, config);
    // What a build that had all of it from this cache knows makes the same records again.
    let cache = read(&config, &layers);
    let mut again = Keys::default();
    for (name, outputs) in [("run", 1), ("more", 1), ("two", 2), ("half", 2), ("forced", 1)] {
        again
            .records
            .insert(digest(name), cache.find(&digest(name), outputs, &all(0)).unwrap());
    }
    again.aliases.insert(digest("name of more"), digest("more"));
    again.made = keys().made;
    assert_eq!(write_config(&again).0, config);
}

#[test]
fn row46_a_layer_the_manifest_does_not_have_makes_no_hit() {
    let (config, mut layers) = write_config(&keys());
    layers.retain(|layer| *layer != blob("run"));
    let cache = read(&config, &layers);
    assert_eq!(cache.find(&digest("more"), 1, &all(1)), None);
    assert!(
        cache.find(&digest("forced"), 1, &all(1)).is_some(),
        "others are not affected"
    );
}

#[test]
fn a_cache_of_buildkit_is_read_and_gives_no_hits_of_ours() {
    let text = format!(
        r#"{{"layers":[{{"blob":"{0}","parent":-1}}],"records":[{{"digest":"{1}"}},{{"layers":[{{"layer":0,"createdAt":"2024-01-02T03:04:05Z"}}],"digest":"{2}","inputs":[[{{"selector":"{3}","link":0}}]]}}]}}"#,
        digest("blob"),
        digest("k1"),
        digest("k2"),
        digest("sel"),
    );
    let cache = ReadCache::new(CacheConfig::parse(text.as_bytes()).unwrap(), &HashMap::new()).unwrap();
    assert_eq!(cache.outputs.len(), 2);
    assert_eq!(cache.find(&digest("run"), 1, &all(1)), None);
    assert_eq!(cache.find(&digest("k1"), 1, &all(1)), None);
}

#[test]
fn row31_a_layer_without_an_uncompressed_digest_is_not_used() {
    let mut descriptor = blob("x").descriptor;
    assert_eq!(layer_blob(&descriptor), None);
    descriptor
        .annotations
        .insert(UNCOMPRESSED.to_owned(), "sha256:../..".to_owned());
    assert_eq!(layer_blob(&descriptor), None);
    descriptor
        .annotations
        .insert(UNCOMPRESSED.to_owned(), digest("d").to_string());
    descriptor.urls.push("https://elsewhere.example/".to_owned());
    let found = layer_blob(&descriptor).unwrap();
    assert!(found.descriptor.urls.is_empty() && found.descriptor.annotations.is_empty());
}

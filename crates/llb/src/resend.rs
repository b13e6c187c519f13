//! Definitions that go back to a client. Written by protobuf's rules an entry of a map whose value is empty has no value, and
//! Go's readers make that a nil pointer, which `client/llb/definition.go` follows.

use bollard_buildkit_proto::pb;

/// Takes out of `definition`, and of those in it, what says nothing and cannot be sent: places without a line.
pub fn sendable(definition: &mut pb::Definition) {
    let Some(source) = &mut definition.source else {
        return;
    };
    source.locations.retain(|_, places| !places.locations.is_empty());
    for info in &mut source.infos {
        if let Some(inner) = &mut info.definition {
            sendable(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_a_line_are_left_out_at_every_depth() {
        let with_empty = |infos| pb::Definition {
            source: Some(pb::Source {
                locations: [
                    ("empty".to_owned(), pb::Locations::default()),
                    (
                        "full".to_owned(),
                        pb::Locations {
                            locations: vec![pb::Location::default()],
                        },
                    ),
                ]
                .into_iter()
                .collect(),
                infos,
            }),
            ..pb::Definition::default()
        };
        let mut definition = with_empty(vec![pb::SourceInfo {
            definition: Some(with_empty(Vec::new())),
            ..pb::SourceInfo::default()
        }]);
        sendable(&mut definition);
        let outer = definition.source.unwrap();
        let inner = outer.infos[0].definition.clone().unwrap().source.unwrap();
        for source in [&outer, &inner] {
            assert_eq!(source.locations.keys().collect::<Vec<_>>(), ["full"]);
        }
    }
}

//! Any bytes as a bake file in HCL, in JSON and as a compose file: read or refused without a panic, and what is read can be chosen
//! from and printed.
#![no_main]

use std::collections::BTreeMap;
use std::io;

use libfuzzer_sys::fuzz_target;
use rbuild_bake::{File, Surroundings, read};

fuzz_target!(|bytes: &[u8]| {
    let surroundings = Surroundings {
        variable: &|name| (name == "A").then(|| "a".to_owned()),
        dotenv: "B=b\n".to_owned(),
        file: &|_| Err(io::ErrorKind::NotFound.into()),
        builtins: BTreeMap::new(),
        now: 0,
        home: "/root".to_owned(),
    };
    for name in ["docker-bake.hcl", "docker-bake.json", "compose.yaml"] {
        let file = File {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        };
        if let Ok(definition) = read(&[file], &surroundings) {
            let names: Vec<String> = definition.listed().into_iter().map(|(name, ..)| name).collect();
            if let Ok(mut chosen) = definition.choose(&names, &[], surroundings.variable) {
                let _prepared = chosen.prepare(Some("1"));
                let _printed = chosen.to_json().to_text();
            }
        }
    }
});

//! Which keys a job file may have. A file is checked against them before it is read, for what goes over the wire takes keys that
//! it does not know, and a misspelled limit would be no limit.
//!
//! Invariant: the tables here name exactly the keys of [`crate::wire::job::JobSpec`]; a test holds them against each other.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config;

/// The keys of a table, and of the tables and lists of tables in it.
#[derive(Debug)]
struct Table {
    keys: &'static [&'static str],
    inner: &'static [(&'static str, &'static Table)],
}

static JOB: Table = Table {
    keys: &["name", "services", "requirements", "limits", "output_path", "network", "interactive"],
    inner: &[
        ("services", &SERVICE),
        ("requirements", &Table { keys: &["score_min", "node_id", "architecture", "isolation", "proven"], inner: &[] }),
        ("limits", &Table { keys: LIMITS, inner: &[] }),
        ("network", &Table { keys: &["reach", "domains"], inner: &[] }),
    ],
};

const LIMITS: &[&str] = &[
    "price_max",
    "duration_seconds_max",
    "start_deadline_seconds",
    "stop_grace_seconds",
    "log_bytes_max",
    "output_bytes_max",
    "pids_max",
];

static SERVICE: Table = Table {
    keys: &[
        "name",
        "image",
        "entrypoint",
        "command",
        "env",
        "workdir",
        "resources",
        "root",
        "depends_on",
        "restart",
        "health",
        "inputs",
        "registry",
        "shm_bytes",
    ],
    inner: &[
        ("resources", &Table { keys: &["cpu_millis", "memory_bytes", "disk_bytes", "gpus"], inner: &[] }),
        ("restart", &Table { keys: &["when", "times_max"], inner: &[] }),
        ("health", &HEALTH),
        ("inputs", &Table { keys: &["url", "sha256", "path", "bytes_max", "executable"], inner: &[] }),
        ("registry", &Table { keys: &["username", "password"], inner: &[] }),
    ],
};

static HEALTH: Table = Table {
    keys: &["test", "interval_seconds", "timeout_seconds", "retries", "start_grace_seconds"],
    inner: &[("test", &Table { keys: &["kind", "command", "port", "path"], inner: &[] })],
};

/// A job of which nothing but its keys is read. Whoever reads TOML words an unknown key himself; for JSON that is done here.
pub(super) struct JobKeys<const JSON: bool>;

impl<'de, const JSON: bool> Deserialize<'de> for JobKeys<JSON> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Keys::<JSON>(&JOB).deserialize(deserializer).map(|()| Self)
    }
}

#[derive(Clone, Copy)]
struct Keys<const JSON: bool>(&'static Table);

impl<'de, const JSON: bool> DeserializeSeed<'de> for Keys<JSON> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const JSON: bool> Visitor<'de> for Keys<JSON> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(table) = self;
        while let Some(key) = map.next_key::<String>()? {
            if !table.keys.contains(&key.as_str()) {
                return Err(if JSON {
                    A::Error::custom(format!("there is no key '{key}'{}", config::hint(&key, table.keys)))
                } else {
                    A::Error::unknown_field(&key, table.keys)
                });
            }
            match table.inner.iter().find(|(name, _)| *name == key) {
                Some((_, inner)) => map.next_value_seed(Self(inner))?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    // What is no table here is told by whoever reads the job after this.

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::wire::job::{
        HealthCheck, HealthTest, InputSpec, Isolation, JobLimits, JobSpec, NetworkSpec, Reach, RegistryLogin,
        Requirements, Resources, RestartPolicy, RestartWhen, ServiceSpec,
    };

    /// Everything that can be said, so that nothing is left out of what it serialises to.
    fn service(test: HealthTest) -> ServiceSpec {
        ServiceSpec {
            name: "a".into(),
            image: "b".into(),
            entrypoint: Some(vec!["c".into()]),
            command: vec!["d".into()],
            env: [("ANY".to_owned(), crate::wire::Secret::new("x"))].into(),
            workdir: Some("/".into()),
            resources: Resources::default(),
            root: true,
            depends_on: vec!["e".into()],
            restart: RestartPolicy { when: RestartWhen::OnFailure, times_max: Some(1) },
            health: Some(HealthCheck {
                test,
                interval_seconds: 1,
                timeout_seconds: 1,
                retries: 1,
                start_grace_seconds: 1,
            }),
            inputs: vec![InputSpec {
                url: "u".into(),
                sha256: "s".into(),
                path: "p".into(),
                bytes_max: Some(1),
                executable: true,
            }],
            registry: Some(RegistryLogin { username: "u".into(), password: crate::wire::Secret::new("p") }),
            shm_bytes: Some(1),
        }
    }

    fn whole() -> JobSpec {
        let tests = [
            HealthTest::Exec { command: vec!["x".into()] },
            HealthTest::Http { port: 1, path: "/".into() },
            HealthTest::Tcp { port: 1 },
        ];
        JobSpec {
            name: Some("n".into()),
            services: tests.map(service).into(),
            requirements: Requirements {
                score_min: Some(1),
                node_id: Some(uuid::Uuid::nil().into()),
                architecture: Some("amd64".into()),
                isolation: Some(Isolation::Kata),
                proven: true,
            },
            limits: JobLimits { start_deadline_seconds: Some(1), ..JobLimits::default() },
            output_path: Some("/o".into()),
            network: NetworkSpec { reach: Reach::Internet, domains: vec!["d".into()] },
            interactive: true,
        }
    }

    /// All places of keys, like `services.health.test.port`.
    fn places_of(value: &Value, at: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let place = format!("{at}.{key}");
                    found.insert(place.clone());
                    if key != "env" {
                        places_of(value, &place, found);
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| places_of(value, at, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn places_in(table: &Table, at: &str, found: &mut BTreeSet<String>) {
        found.extend(table.keys.iter().map(|key| format!("{at}.{key}")));
        for (key, inner) in table.inner {
            places_in(inner, &format!("{at}.{key}"), found);
        }
    }

    #[test]
    fn the_keys_are_those_of_a_job_and_no_others() {
        let (mut of_job, mut here) = (BTreeSet::new(), BTreeSet::new());
        places_of(&serde_json::to_value(whole()).unwrap(), "", &mut of_job);
        places_in(&JOB, "", &mut here);
        assert_eq!(here, of_job);
    }
}

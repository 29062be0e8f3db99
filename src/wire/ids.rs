//! Typed identifiers. Each is a UUIDv7, so identifiers sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh identifier whose sort order follows `now`.
            #[must_use]
            pub fn generate(now: Timestamp) -> Self {
                Self(uuid_v7(now))
            }

            /// The identifier behind the type.
            #[must_use]
            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

typed_id!(
    /// A machine that lends compute.
    NodeId
);
typed_id!(
    /// What a renter submitted.
    JobId
);
typed_id!(
    /// One job placed on one node at one price.
    LeaseId
);
typed_id!(
    /// A person or company that owns nodes, rents, or both.
    AccountId
);
typed_id!(
    /// One attempt of a machine to join.
    EnrollmentId
);
typed_id!(
    /// One start of an agent process; sequences count from zero within it.
    BootId
);

typed_id!(
    /// One command or copy in a running job, from its renter.
    ReachId
);
typed_id!(
    /// One demand on a node to prove what it can compute.
    ChallengeId
);

fn uuid_v7(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this. Saturates: 2^64 steps are out of reach.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Version of a desired state; the receiver keeps the highest it has seen.
    Generation
);
counter!(
    /// Place of a report in its stream; each is accepted once.
    Sequence
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = NodeId::generate(Timestamp::from_second(1_000).unwrap());
        let late = NodeId::generate(Timestamp::from_second(2_000).unwrap());
        assert!(early < late);
    }

    #[test]
    fn an_id_survives_text_and_json() {
        let id = LeaseId::generate(Timestamp::from_second(5).unwrap());
        assert_eq!(id.to_string().parse::<LeaseId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<LeaseId>(&json).unwrap(), id);
    }
}

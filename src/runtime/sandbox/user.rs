//! Whom a job's program runs as.
//!
//! An image names its user by number or by name. Only numbers are trusted not to be root: a name may stand for user 0 in the
//! image's own `/etc/passwd`, so it is looked up there first ([`from_passwd`]).

/// Nobody that any image knows, as distroless images have it.
const NOBODY: u32 = 65_532;

/// Whom a container's program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobUser {
    /// By number.
    Number {
        /// User.
        uid: u32,
        /// Group; the image's own choice when absent.
        gid: Option<u32>,
    },
    /// By name, `user` or `user:group`; not yet known who that is.
    Name(String),
}

impl JobUser {
    /// Root of the container.
    pub const ROOT: Self = Self::Number { uid: 0, gid: Some(0) };
    /// Somebody without any right.
    pub const NOBODY: Self = Self::Number { uid: NOBODY, gid: Some(NOBODY) };

    /// The image's own user if that is not root, else nobody.
    #[must_use]
    pub fn of_image(user: &str) -> Self {
        let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
        let gid = group.map(str::parse::<u32>);
        match (name.parse::<u32>(), gid) {
            (Ok(0), _) => Self::NOBODY,
            (Ok(uid), None) => Self::Number { uid, gid: None },
            (Ok(uid), Some(Ok(gid))) => Self::Number { uid, gid: Some(gid) },
            (Err(_), _) if matches!(name, "" | "root") => Self::NOBODY,
            (_, _) => Self::Name(user.to_owned()),
        }
    }

    /// As engines write it.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::Number { uid, gid: None } => uid.to_string(),
            Self::Number { uid, gid: Some(gid) } => format!("{uid}:{gid}"),
            Self::Name(name) => name.clone(),
        }
    }

    /// User and group that own what is made for the job.
    #[must_use]
    pub fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Self::Number { uid, gid } => Some((*uid, gid.unwrap_or(0))),
            Self::Name(_) => None,
        }
    }
}

/// Who `user` is by an image's `/etc/passwd`: its number, and its primary group's. Nobody when it is not in there or is root.
#[must_use]
pub fn from_passwd(user: &str, passwd: &str) -> JobUser {
    let name = user.split(':').next().unwrap_or(user);
    let known = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (line_name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (line_name == name).then(|| (uid.parse::<u32>().ok(), gid.parse::<u32>().ok()))
    });
    let gid_asked = user.split_once(':').and_then(|(_, group)| group.parse().ok());
    match known {
        Some((Some(uid), gid)) if uid != 0 => JobUser::Number { uid, gid: gid_asked.or(gid) },
        Some(_) | None => JobUser::NOBODY,
    }
}

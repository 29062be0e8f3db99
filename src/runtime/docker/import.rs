//! Images from an archive instead of a registry: what `fizz demo` runs.

use bollard::query_parameters::{ImportImageOptions, RemoveImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::super::RuntimeError;
use super::{CALL_DEADLINE, DockerRuntime, PIECE_DEADLINE, errors};

impl DockerRuntime {
    /// Loads an image archive (the layout of `docker save`) that names its image `tag`; answers with the image's id, which is
    /// a reference that never leaves this machine.
    ///
    /// # Errors
    /// When the engine refuses the archive, is full, or does not answer.
    pub async fn import_image(&self, archive: Bytes, tag: &str) -> Result<String, RuntimeError> {
        const WHAT: &str = "load an image";
        let body = bollard::body_full(archive);
        let mut words = self.docker.import_image(ImportImageOptions::default(), body, None);
        loop {
            let next = tokio::time::timeout(PIECE_DEADLINE, words.next()).await;
            match next.map_err(|_| RuntimeError::TimedOut { what: WHAT, seconds: PIECE_DEADLINE.as_secs() })? {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(errors::classify(&self.address, WHAT, error)),
                None => break,
            }
        }
        let found = self.call("look at an image", CALL_DEADLINE, self.docker.inspect_image(tag)).await?;
        found.id.ok_or_else(|| RuntimeError::Engine { what: WHAT, detail: "it gives the image no id".to_owned() })
    }

    /// Takes the name `tag` off its image, and removes the image when that was its last name. Nothing happens when there is no
    /// such image.
    ///
    /// # Errors
    /// When a container still uses it, or the engine does not answer.
    pub async fn remove_image(&self, tag: &str) -> Result<(), RuntimeError> {
        let options = RemoveImageOptionsBuilder::new().build();
        let removed = self.docker.remove_image(tag, Some(options), None);
        match self.call("remove an image", CALL_DEADLINE, removed).await {
            Ok(_) | Err(RuntimeError::ImageNotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

//! The control socket on Windows: not there yet.

use std::path::Path;

use super::{Answer, ControlError, ControlHandle, Request};
use crate::clock::Clock;

/// The agent's side.
#[derive(Debug)]
pub struct Server(());

/// A view's side.
#[derive(Debug)]
pub struct Client(());

impl Server {
    /// Says that it cannot be had.
    ///
    /// # Errors
    /// Always [`ControlError::NotYet`].
    pub fn bind(_socket: &Path) -> Result<Self, ControlError> {
        Err(ControlError::NotYet)
    }

    /// Never ends and never answers.
    pub async fn run(self, _handle: ControlHandle, _clock: Clock) {
        std::future::pending().await
    }
}

#[expect(clippy::unused_async, reason = "the same functions as on the other systems")]
impl Client {
    /// Says that it cannot be had.
    ///
    /// # Errors
    /// Always [`ControlError::NotYet`].
    pub async fn connect(_socket: &Path) -> Result<Self, ControlError> {
        Err(ControlError::NotYet)
    }

    /// Says that it cannot be had.
    ///
    /// # Errors
    /// Always [`ControlError::NotYet`].
    pub async fn send(&mut self, _request: Request) -> Result<(), ControlError> {
        Err(ControlError::NotYet)
    }

    /// Says that it cannot be had.
    ///
    /// # Errors
    /// Always [`ControlError::NotYet`].
    pub async fn next(&mut self) -> Result<Answer, ControlError> {
        Err(ControlError::NotYet)
    }

    /// Says that it cannot be had.
    ///
    /// # Errors
    /// Always [`ControlError::NotYet`].
    pub async fn ask(_socket: &Path, _request: Request) -> Result<Answer, ControlError> {
        Err(ControlError::NotYet)
    }
}

//! The OpenAPI document's frame: title, version, credentials. The paths come from the routes themselves.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi};

use crate::wire::PROTOCOL_VERSION;

/// Puts the frame around the collected paths.
pub(crate) fn finish(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Fizz coordinator")
        .version(PROTOCOL_VERSION)
        .description(Some("Errors are RFC 9457 problem+json with a stable `code`. Money is integer micro-USD."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let components = document.components.get_or_insert_with(|| ComponentsBuilder::new().build());
    for (name, what) in [
        ("session", "A node's session token (`fzs_…`), from POST /v1/sessions."),
        ("api_key", "An account's API key (`fzk_…`)."),
        ("admin_token", "The operator's token (`fza_…`), in admin.token of the data folder."),
    ] {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what)).build();
        components.security_schemes.insert(name.to_owned(), SecurityScheme::Http(scheme).into());
    }
    document
}

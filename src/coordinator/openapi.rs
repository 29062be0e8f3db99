//! The OpenAPI document's frame: title, version, credentials, and the one form of refusals. The paths come from the routes themselves.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, Response, ResponseBuilder,
};

use crate::wire::{PROBLEM_MEDIA_TYPE, PROTOCOL_VERSION};

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
    let operations = document.paths.paths.iter_mut().filter(|(path, _)| path.starts_with("/v1/"));
    for operation in operations.flat_map(|(_, item)| operations_of(item)) {
        operation.responses.responses.entry("4XX".to_owned()).or_insert_with(|| refusal().into());
    }
    document
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

/// Every call of the protocol refuses in the same form.
fn refusal() -> Response {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new()
        .description("Refused; the `code` says why, see ErrorCode")
        .content(PROBLEM_MEDIA_TYPE, problem)
        .build()
}

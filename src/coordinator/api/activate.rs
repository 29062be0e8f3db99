//! The page on which an owner approves a machine by its code.
//!
//! Invariants
//! - No script, no outside request, no cookie: the API key is typed into the form and forgotten with the answer, so no other
//!   site can make a browser approve anything.
//! - Everything that came from outside is escaped.

use std::net::SocketAddr;
use std::sync::LazyLock;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enroll::{decide, parse_code};
use crate::coordinator::App;
use crate::coordinator::auth::AccountAuth;
use crate::coordinator::problem::{ApiError, Query};
use crate::coordinator::secrets::{SecretKind, sha256};
use crate::coordinator::store::enrollments::EnrollmentRow;
use crate::wire::enroll::EnrollDecision;
use crate::wire::{ErrorCode, Secret};

const PAGE: &str = include_str!("../../../assets/activate/page.html");
const ASK_CODE: &str = include_str!("../../../assets/activate/ask-code.html");
const DECIDE: &str = include_str!("../../../assets/activate/decide.html");
const STYLE: &str = include_str!("../../../assets/activate/style.css");

/// Only our own style, named by its hash, and only our own form target.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("base64 and ASCII make a header")
});

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_page, submit_page))
}

/// The code, when it comes with the address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// Code of the machine, in any case, with or without its dash.
    #[serde(default)]
    code: Option<String>,
}

/// What the form sends.
#[derive(Deserialize, ToSchema)]
struct PageForm {
    /// Code of the machine.
    code: String,
    /// The owner's API key.
    api_key: Secret,
    /// `approve` or `deny`.
    decision: String,
}

/// The page that asks for a code, or for a decision when the code is known.
#[utoipa::path(get, path = "/activate", tag = "account", params(PageQuery), responses(
    (status = 200, body = String, content_type = "text/html"),
))]
async fn show_page(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<PageQuery>,
) -> Response {
    let Some(code) = query.code.filter(|code| !code.trim().is_empty()) else { return ask_code("", None) };
    match look_up(&app, peer, &code).await {
        Ok(row) => ask_decision(&row, None),
        Err(error) => ask_code(&code, Some(&error)),
    }
}

/// The owner's decision.
#[utoipa::path(post, path = "/activate", tag = "account",
    request_body(content = PageForm, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, body = String, content_type = "text/html"),
    (status = "4XX", body = String, content_type = "text/html"),
))]
async fn submit_page(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    form: Result<Form<PageForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let error = ApiError::new(ErrorCode::InvalidRequest, "the form is incomplete");
        return ask_code("", Some(&error));
    };
    let row = match look_up(&app, peer, &form.code).await {
        Ok(row) => row,
        Err(error) => return ask_code(&form.code, Some(&error)),
    };
    match decided(&app, peer, &form).await {
        Ok(row) => result(&row),
        Err(error) => ask_decision(&row, Some(&error)),
    }
}

async fn decided(app: &App, peer: SocketAddr, form: &PageForm) -> Result<EnrollmentRow, ApiError> {
    let approve = match form.decision.as_str() {
        "approve" => true,
        "deny" => false,
        _ => return Err(ApiError::new(ErrorCode::InvalidRequest, "press Approve or Deny")),
    };
    let key = form.api_key.expose().trim();
    let account = if SecretKind::ApiKey.claims(key) { app.store.account_by_key(&sha256(key)).await? } else { None };
    let Some(account_id) = account else {
        return Err(ApiError::new(ErrorCode::Unauthorized, "no account has this API key; it starts with fzk_"));
    };
    decide(app, peer, AccountAuth { account_id }, &form.code, approve).await
}

async fn look_up(app: &App, peer: SocketAddr, code: &str) -> Result<EnrollmentRow, ApiError> {
    app.limits.check_guess(peer.ip(), app.clock.steady())?;
    Ok(app.store.enrollment_by_code(parse_code(code)?, app.clock.now()).await?)
}

fn ask_code(code: &str, error: Option<&ApiError>) -> Response {
    let body = ASK_CODE.replace("{{error}}", &error_box(error)).replace("{{code}}", &escaped(code));
    page(error, "Connect a machine", &body)
}

fn ask_decision(row: &EnrollmentRow, error: Option<&ApiError>) -> Response {
    if row.decision != EnrollDecision::Pending && error.is_none() {
        return result(row);
    }
    let body = DECIDE
        .replace("{{error}}", &error_box(error))
        .replace("{{code}}", &row.user_code.to_string())
        .replace("{{version}}", &escaped(&row.agent_version))
        .replace("{{name}}", &escaped(&row.name));
    page(error, "Let this machine in?", &body)
}

fn result(row: &EnrollmentRow) -> Response {
    let name = escaped(&row.name);
    let (title, text) = if row.decision == EnrollDecision::Approved {
        ("It is in", format!("<strong>{name}</strong> now belongs to your account. You can close this page."))
    } else {
        ("It stays out", format!("<strong>{name}</strong> was turned away. You can close this page."))
    };
    page(None, title, &format!("<p class=\"lead\" role=\"status\">{text}</p>"))
}

fn error_box(error: Option<&ApiError>) -> String {
    error.map_or_else(String::new, |error| {
        format!("<p class=\"error\" role=\"alert\">{}</p>", escaped(&error.problem().to_string()))
    })
}

fn page(error: Option<&ApiError>, title: &str, body: &str) -> Response {
    let status = error.and_then(|error| StatusCode::from_u16(error.problem().status).ok()).unwrap_or(StatusCode::OK);
    let html = PAGE.replace("{{style}}", STYLE).replace("{{title}}", title).replace("{{body}}", body);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    (status, headers, Html(html)).into_response()
}

/// Text as HTML shows it, also inside an attribute. Braces too: a name must not look like one of our own places.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '{' => html.push_str("&#123;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_cannot_become_markup() {
        assert_eq!(escaped("<b a='\"'>&{{code}}"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;&#123;&#123;code}}");
    }

    #[test]
    fn the_style_named_by_the_policy_is_the_style_on_the_page() {
        let html = PAGE.replace("{{style}}", STYLE);
        let on_page = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        assert!(POLICY.to_str().unwrap().contains(&STANDARD.encode(Sha256::digest(on_page.as_bytes()))));
        assert!(!html.contains("<script") && !html.contains("http"), "no script and nothing from elsewhere");
    }
}

import { createHash, randomBytes } from "node:crypto";
import * as oidc from "openid-client";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Desk } from "../desk.ts";
import type { Entry, People } from "../people.ts";
import { type Ticket, Tickets } from "../tickets.ts";
import { type Answer, page, type Request, redirect } from "./http.ts";
import { confirmLoginView, loginView } from "./views.ts";

/**
 * Who looks at the page. A person comes by a link of their own that works once, or by the identity provider; who they
 * are and what they may do is looked up in people.yaml and keys.yaml at every request.
 */
export type LoginOptions = {
  readonly desk: Desk;
  readonly people: People;
  readonly ticketKey: Buffer;
  /** As people reach the page: scheme, host, port. */
  readonly publicUrl: string;
  readonly oidc: OidcOptions | undefined;
  readonly now: () => number;
};

export type OidcOptions = {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** For an issuer on this machine, without TLS. */
  readonly insecure: boolean;
};

export type Visitor = { readonly person: Entry; readonly session: string; readonly formToken: string };

export const LINK_LIFE_MS = 10 * 60_000;
const SESSION_LIFE_MS = 10 * 3_600_000;
const OIDC_LIFE_MS = 10 * 60_000;

export class Login {
  readonly #options: LoginOptions;
  readonly tickets: Tickets;
  #provider: Promise<oidc.Configuration> | undefined;

  constructor(options: LoginOptions) {
    this.#options = options;
    this.tickets = new Tickets(options.ticketKey, options.now);
  }

  /** A link that logs this person in, once. */
  linkFor(person: { readonly tenant: string; readonly name: string }, approvalId: string) {
    const { tenant, name } = person;
    const to = approvalId === "" ? "/" : `/a/${approvalId}`;
    const token = this.tickets.seal({ kind: "login", tenant, name, id: newToken(), to }, LINK_LIFE_MS);
    return {
      url: `${this.#options.publicUrl}/login/link?t=${token}`,
      untilMs: this.#options.now() + LINK_LIFE_MS,
    };
  }

  /** Where to look; whoever follows it still has to log in. */
  placeOf(tenant: string, approvalId: string, lifeMs: number): string {
    const token = this.tickets.seal({ kind: "link", tenant, approvalId }, lifeMs);
    return `${this.#options.publicUrl}/l?t=${token}`;
  }

  /** undefined: nobody, or nobody any more. */
  visitor(request: Request): Visitor | undefined {
    const token = request.cookies.get(this.#cookieName) ?? "";
    const opened = this.tickets.open(token, "session");
    if (opened === undefined) return undefined;
    const { tenant, name, id } = opened.ticket;
    const person = this.#options.people.find(tenant, name);
    if (person === undefined) return undefined;
    return { person, session: id, formToken: this.tickets.seal({ kind: "form", id }, SESSION_LIFE_MS) };
  }

  /** A form of this visitor's own page, sent from this site: the token and, where the browser names it, the origin. */
  isOwnForm(request: Request, { session }: Visitor, token: string): boolean {
    const { origin } = request.headers;
    if (origin !== undefined && origin !== new URL(this.#options.publicUrl).origin) return false;
    return this.tickets.open(token, "form")?.ticket.id === session;
  }

  async handle(request: Request): Promise<Answer | undefined> {
    const { url, method } = request;
    switch (`${method} ${url.pathname}`) {
      case "GET /login":
        return page(
          200,
          loginView({ oidc: this.#options.oidc !== undefined, to: safePath(url.searchParams.get("to")) }),
        );
      case "GET /login/link":
        return this.#confirmLink(url);
      case "POST /login/link":
        return await this.#useLink(new URLSearchParams(request.body.toString("utf8")));
      case "GET /login/oidc":
        return await this.#beginOidc(safePath(url.searchParams.get("to")));
      case "GET /oidc/callback":
        return await this.#endOidc(request);
      case "POST /logout": {
        const visitor = this.visitor(request);
        const form = new URLSearchParams(request.body.toString("utf8"));
        if (visitor === undefined || !this.isOwnForm(request, visitor, form.get("token") ?? "")) return redirect("/");
        return redirect("/login", [this.#cookie("", 0)]);
      }
      default:
        return undefined;
    }
  }

  /** Mail scanners and previews follow links: only a press of the button uses it up. */
  #confirmLink(url: URL): Answer {
    const token = url.searchParams.get("t") ?? "";
    const opened = this.tickets.open(token, "login");
    if (opened === undefined) return this.#refused(LINK_OVER);
    return page(200, confirmLoginView({ token, name: opened.ticket.name }));
  }

  async #useLink(form: URLSearchParams): Promise<Answer> {
    const opened = this.tickets.open(form.get("t") ?? "", "login");
    if (opened === undefined) return this.#refused(LINK_OVER);
    const { ticket, untilMs } = opened;
    const person = this.#options.people.find(ticket.tenant, ticket.name);
    if (person === undefined) return this.#refused("You are not known here any more. Ask an operator.");
    try {
      const claim = { kind: "claim", key: `login ${ticket.id}`, attempt: newToken(), untilMs } as const;
      await this.#options.desk.run(ticket.tenant, { ...claim, nowMs: this.#options.now() });
    } catch (error) {
      if (RpcError.from(error).reason === "REPLAYED") return this.#refused(LINK_OVER);
      throw error;
    }
    return this.#logIn(person, ticket.to);
  }

  #logIn({ tenant, name }: Entry, to: string): Answer {
    const ticket: Ticket = { kind: "session", tenant, name, id: newToken() };
    return redirect(to, [this.#cookie(this.tickets.seal(ticket, SESSION_LIFE_MS), SESSION_LIFE_MS)]);
  }

  async #beginOidc(to: string): Promise<Answer> {
    const provider = await this.#openProvider();
    if (provider === undefined) return this.#refused("There is no identity provider here. Ask for a link.");
    const [state, nonce, verifier] = [oidc.randomState(), oidc.randomNonce(), oidc.randomPKCECodeVerifier()];
    const url = oidc.buildAuthorizationUrl(provider, {
      redirect_uri: this.#callback,
      scope: "openid email",
      ...{ state, nonce },
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
    });
    const begun = this.tickets.seal({ kind: "oidc", state, nonce, verifier, to }, OIDC_LIFE_MS);
    return redirect(url.href, [this.#cookie(begun, OIDC_LIFE_MS, OIDC_COOKIE)]);
  }

  async #endOidc(request: Request): Promise<Answer> {
    const begun = this.tickets.open(request.cookies.get(OIDC_COOKIE) ?? "", "oidc");
    const provider = await this.#openProvider();
    if (begun === undefined || provider === undefined) return this.#refused("This login took too long. Begin again.");
    const { state, nonce, verifier, to } = begun.ticket;
    const current = new URL(this.#callback + request.url.search);
    const checks = { expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier };
    let claims: ReturnType<oidc.TokenEndpointResponseHelpers["claims"]>;
    try {
      claims = (await oidc.authorizationCodeGrant(provider, current, checks)).claims();
    } catch {
      return this.#refused("The identity provider did not vouch for you. Begin again.");
    }
    const verifiedEmail = claims?.["email_verified"] === true ? String(claims["email"]) : undefined;
    const person = claims && this.#options.people.byOidc({ subject: claims.sub, verifiedEmail });
    if (person === undefined) return this.#refused("You are not known here as a reviewer. Ask an operator.");
    return this.#logIn(person, to);
  }

  async #openProvider(): Promise<oidc.Configuration | undefined> {
    const wanted = this.#options.oidc;
    if (wanted === undefined) return undefined;
    const execute = wanted.insecure ? { execute: [oidc.allowInsecureRequests] } : {};
    this.#provider ??= oidc
      .discovery(new URL(wanted.issuer), wanted.clientId, wanted.clientSecret, undefined, execute)
      .catch((error: unknown) => {
        this.#provider = undefined; // asked again at the next login
        throw error;
      });
    return await this.#provider;
  }

  #refused(why: string): Answer {
    return page(403, loginView({ oidc: this.#options.oidc !== undefined, to: "/", problem: why }));
  }

  get #callback(): string {
    return `${this.#options.publicUrl}/oidc/callback`;
  }

  get #secure(): boolean {
    return this.#options.publicUrl.startsWith("https:");
  }

  get #cookieName(): string {
    return this.#secure ? "__Host-interlock" : "interlock";
  }

  #cookie(value: string, lifeMs: number, name = this.#cookieName): string {
    const age = Math.floor(lifeMs / 1_000);
    return `${name}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${age}${this.#secure ? "; Secure" : ""}`;
  }
}

const OIDC_COOKIE = "interlock-oidc";
const LINK_OVER = "This link was used before, or its time is over. Ask for a new one: interlock approvals open";

/** Only a place on this site. */
export function safePath(to: string | null): string {
  return to !== null && /^\/[A-Za-z0-9/_-]*$/.test(to) && !to.startsWith("//") ? to : "/";
}

function newToken(): string {
  return randomBytes(16).toString("base64url");
}

/** What a page's static files are known by, so that a new build is never shown with old ones. */
export function fingerprint(content: Buffer): string {
  return createHash("sha256").update(content).digest("base64url").slice(0, 12);
}

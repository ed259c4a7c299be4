import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A small OpenID Connect issuer: discovery, authorisation code with PKCE (S256), RS256 id tokens. It takes a code once, from
 * the client it was given to, with the verifier and redirect it began with; `user` is logged in there without being asked.
 */
export type Claims = Readonly<Record<string, unknown>>;

type Begun = { readonly nonce: string; readonly challenge: string; readonly redirect: string };

export class Issuer implements AsyncDisposable {
  readonly clientId = "interlock";
  readonly clientSecret = randomBytes(16).toString("hex");
  /** Who is logged in there; `iss`, `nonce`, `aud`, ... in it replace what a right token says. */
  user: Claims = {};
  url = "";
  readonly #key = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  readonly #codes = new Map<string, Begun>();
  readonly #server = createServer(async (request, response) => {
    const { status, headers, body } = await this.#answer(request);
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
  });

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this.url;
  }

  async #answer(request: IncomingMessage) {
    const url = new URL(request.url ?? "", this.url);
    switch (url.pathname) {
      case "/.well-known/openid-configuration":
        return answer(200, {
          issuer: this.url,
          authorization_endpoint: `${this.url}/authorize`,
          token_endpoint: `${this.url}/token`,
          jwks_uri: `${this.url}/jwks`,
          response_types_supported: ["code"],
          subject_types_supported: ["public"],
          id_token_signing_alg_values_supported: ["RS256"],
          code_challenge_methods_supported: ["S256"],
        });
      case "/jwks":
        return answer(200, { keys: [{ ...this.#key.publicKey.export({ format: "jwk" }), kid: "1", alg: "RS256" }] });
      case "/authorize":
        return this.#authorize(url.searchParams);
      case "/token": {
        const chunks: Buffer[] = [];
        for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
        return this.#token(new URLSearchParams(Buffer.concat(chunks).toString("utf8")));
      }
      default:
        return answer(404, { error: "not_found" });
    }
  }

  #authorize(asked: URLSearchParams) {
    const get = (name: string) => asked.get(name) ?? "";
    const right = get("client_id") === this.clientId && get("code_challenge_method") === "S256" && get("nonce") !== "";
    if (!right || !get("scope").split(" ").includes("openid")) return answer(400, { error: "invalid_request" });
    const code = randomBytes(16).toString("hex");
    this.#codes.set(code, { nonce: get("nonce"), challenge: get("code_challenge"), redirect: get("redirect_uri") });
    const back = new URL(get("redirect_uri"));
    back.search = new URLSearchParams({ code, state: get("state") }).toString();
    return { status: 302, headers: { location: back.href }, body: {} };
  }

  #token(given: URLSearchParams) {
    const code = given.get("code") ?? "";
    const begun = this.#codes.get(code);
    this.#codes.delete(code);
    const challenge = createHash("sha256")
      .update(given.get("code_verifier") ?? "")
      .digest("base64url");
    if (given.get("client_id") !== this.clientId || given.get("client_secret") !== this.clientSecret) {
      return answer(401, { error: "invalid_client" });
    }
    if (begun?.challenge !== challenge || begun.redirect !== given.get("redirect_uri")) {
      return answer(400, { error: "invalid_grant" });
    }
    const seconds = Math.floor(Date.now() / 1_000);
    const times = { iat: seconds, exp: seconds + 60 };
    const claims = { iss: this.url, aud: this.clientId, nonce: begun.nonce, ...times, ...this.user };
    return answer(200, { access_token: "a", token_type: "Bearer", id_token: this.#signed(claims) });
  }

  #signed(claims: Claims): string {
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${part({ alg: "RS256", kid: "1", typ: "JWT" })}.${part(claims)}`;
    return `${text}.${sign("sha256", Buffer.from(text), this.#key.privateKey).toString("base64url")}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}

function answer(status: number, body: object) {
  return { status, headers: { "cache-control": "no-store" }, body };
}

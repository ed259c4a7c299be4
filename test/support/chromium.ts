import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** The machine's own Chromium, without a window. */
export async function openChromium(): Promise<Browser> {
  const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
  if (executablePath === undefined) throw new Error("there is no Chromium: deploy/bootstrap.sh chromium installs it");
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return await chromium.launch({ executablePath, args: [...sandbox, "--disable-dev-shm-usage"] });
}

import { Audit } from "./audit.js";
import { Credentials } from "./credentials.js";
import { Http } from "./http.js";
import { Jails } from "./jails.js";
import { Keys } from "./keys.js";
import { Public } from "./public.js";
import { Runs } from "./runs.js";
import { Sessions } from "./sessions.js";
import { Settings } from "./settings.js";
import { Snapshots } from "./snapshots.js";
import { Workspaces } from "./workspaces.js";

export interface AgentjailConfig {
  /** Where the control plane is, for instance `http://localhost:7000`. */
  baseUrl: string;
  /** The token of an API key; tenant and role are the server's to know. */
  apiKey?: string | undefined;
  /** Instead of the global one. */
  fetch?: typeof fetch;
  /** Milliseconds that a request may take to the head of its answer, unless it says otherwise. Default: no limit. */
  timeoutMs?: number;
  /** How often a request that only reads is sent again if it found nobody, or was told to come later. Default 2. */
  retries?: number;
}

/** One control plane, as one key sees it. */
export class Agentjail {
  readonly credentials: Credentials;
  readonly sessions: Sessions;
  readonly runs: Runs;
  readonly audit: Audit;
  readonly jails: Jails;
  readonly keys: Keys;
  readonly workspaces: Workspaces;
  readonly snapshots: Snapshots;
  readonly settings: Settings;
  readonly public: Public;

  constructor(config: AgentjailConfig) {
    const http = new Http(config);
    this.credentials = new Credentials(http);
    this.sessions = new Sessions(http);
    this.runs = new Runs(http);
    this.audit = new Audit(http);
    this.jails = new Jails(http);
    this.keys = new Keys(http);
    this.workspaces = new Workspaces(http);
    this.snapshots = new Snapshots(http);
    this.settings = new Settings(http);
    this.public = new Public(http);
  }
}

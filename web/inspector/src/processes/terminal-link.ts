import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { fieldsOf, numberOf, textOf } from "../wire/untrusted.js";
import { endOf } from "./logs.js";

/** Output that is received but not drawn. A socket knows no back-pressure: beyond the upper mark it is closed. */
const BEHIND = { stop: 8 * 1024 * 1024, go: 1024 * 1024 };
const PAUSE_MS = { least: 250, most: 10_000 };

/**
 * A terminal on the page and the socket behind it. When the socket breaks it is opened again, after the last byte
 * received; output that comes faster than it can be drawn is left with the server in the same way.
 */
export class TerminalLink {
  readonly #terminal: Terminal;
  readonly #fit = new FitAddon();
  readonly #sized: ResizeObserver;
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  readonly #address: (since: number | undefined) => string;
  readonly #tell: { status: (text: string) => void; ended: () => void; leave: () => void };
  #socket: WebSocket | undefined;
  #received = 0;
  #behind = 0;
  #held = false;
  #over = false;
  #pauseMs = PAUSE_MS.least;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(
    box: HTMLElement,
    address: (since: number | undefined) => string,
    tell: { status: (text: string) => void; ended: () => void; leave: () => void },
  ) {
    this.#address = address;
    this.#tell = tell;
    this.#terminal = new Terminal({
      fontFamily: getComputedStyle(box).fontFamily,
      fontSize: 13,
      scrollback: 5_000,
      cursorBlink: false,
      theme: this.#theme(),
      // A link in the output is text: it opens nothing.
      linkHandler: { activate: () => undefined },
    });
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.open(box);
    this.#terminal.onData((data) => this.#send({ type: "input", data, encoding: "utf8" }));
    this.#terminal.onBinary((data) => this.#send({ type: "input", data: btoa(data), encoding: "base64" }));
    this.#terminal.onResize(({ cols, rows }) => this.#send({ type: "resize", cols, rows }));
    this.#terminal.attachCustomKeyEventHandler((event) => {
      // Tab belongs to the terminal, so there is another way out by keyboard.
      if (event.key !== "Escape" || !event.shiftKey) return true;
      if (event.type === "keydown") tell.leave();
      return false;
    });
    this.#dark.addEventListener("change", this.#recolour);
    this.#sized = new ResizeObserver(() => this.#fit.fit());
    this.#sized.observe(box);
    this.#fit.fit();
    this.#open();
    this.#terminal.focus();
  }

  close(): void {
    this.#over = true;
    clearTimeout(this.#retry);
    this.#sized.disconnect();
    this.#dark.removeEventListener("change", this.#recolour);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#send({ type: "close" });
    this.#socket?.close();
    this.#terminal.dispose();
  }

  #open(): void {
    if (this.#over) return;
    this.#tell.status("connecting…");
    const socket = new WebSocket(this.#address(this.#received === 0 ? undefined : this.#received));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      if (data instanceof ArrayBuffer) this.#output(new Uint8Array(data));
      else this.#frame(String(data));
    };
    socket.onclose = () => {
      if (socket !== this.#socket || this.#over || this.#held) return;
      this.#tell.status("reconnecting…");
      this.#retry = setTimeout(() => this.#open(), this.#pauseMs);
      this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS.most);
    };
  }

  #output(bytes: Uint8Array): void {
    this.#received += bytes.length;
    this.#behind += bytes.length;
    this.#terminal.write(bytes, () => {
      this.#behind -= bytes.length;
      if (!this.#held || this.#behind > BEHIND.go) return;
      this.#held = false;
      this.#open();
    });
    if (this.#behind <= BEHIND.stop || this.#held) return;
    this.#held = true;
    const socket = this.#socket;
    // What this socket still brings is not counted, so the next one brings it again.
    this.#socket = undefined;
    socket?.close();
  }

  #frame(text: string): void {
    let frame: ReturnType<typeof fieldsOf>;
    try {
      frame = fieldsOf(JSON.parse(text));
    } catch {
      return;
    }
    if (frame.type === "ready") {
      this.#pauseMs = PAUSE_MS.least;
      this.#tell.status("connected");
      this.#send({ type: "resize", cols: this.#terminal.cols, rows: this.#terminal.rows });
    } else if (frame.type === "exit") {
      this.#over = true;
      this.#terminal.options.disableStdin = true;
      this.#tell.status(endOf(numberOf(frame.exitCode), frame.signal));
      this.#tell.ended();
    } else if (frame.type === "error") {
      this.#tell.status(textOf(frame.message) ?? "error");
    }
  }

  #send(frame: object): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #recolour = () => {
    this.#terminal.options.theme = this.#theme();
  };

  #theme() {
    return this.#dark.matches
      ? { background: "#0d1117", foreground: "#d5dbe3", cursor: "#d5dbe3", selectionBackground: "#2f4a75" }
      : {
          background: "#ffffff",
          foreground: "#1c2430",
          cursor: "#1c2430",
          selectionBackground: "#c4d7f7",
          // The usual bright colours are unreadable on white.
          yellow: "#7a5b00",
          brightYellow: "#7a5b00",
          green: "#1a6b33",
          brightGreen: "#1a6b33",
          cyan: "#0b6674",
          brightCyan: "#0b6674",
          white: "#4a5565",
          brightWhite: "#1c2430",
        };
  }
}

export interface Command {
  command: string;
  args: string[];
}

/** What only a shell understands: pipes, redirections, variables, patterns, several commands. */
const SHELL = /[|&;<>()$`*?[\]{}~#\n\\]|^\w+=/;

/**
 * A command line as a program and its arguments. Plain words, quoted or not, are taken as they are; a line that uses
 * the shell's language goes to `sh -c` whole.
 */
export function commandOf(line: string): Command | undefined {
  const text = line.trim();
  if (text === "") return undefined;
  const words = wordsOf(text);
  if (words === undefined || SHELL.test(text)) return { command: "sh", args: ["-c", text] };
  const [command = "", ...args] = words;
  return { command, args };
}

/** The words of a line without the shell's language; undefined if a quote is not closed. */
function wordsOf(text: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (const letter of text) {
    if (quote !== undefined) {
      if (letter === quote) quote = undefined;
      else word = (word ?? "") + letter;
    } else if (letter === "'" || letter === '"') {
      quote = letter;
      word ??= "";
    } else if (/\s/.test(letter)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + letter;
    }
  }
  if (quote !== undefined) return undefined;
  if (word !== undefined) words.push(word);
  return words;
}

/** A command as one would type it. */
export function lineOf({ command, args }: Command): string {
  return [command, ...args]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}

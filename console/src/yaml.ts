// Colours for YAML as the console's server writes it. Pure; see yaml.test.ts.

export type Token = { kind: 'key' | 'text' | 'number' | 'mark' | 'plain'; text: string };

const line = /^(\s*(?:- )*)("(?:[^"\\]|\\.)*"|[^\s"'#][^:#]*?)(:)(?=\s|$)(.*)$/;

/** tokens splits one line into pieces whose texts together are the line. */
export function tokens(s: string): Token[] {
  const m = line.exec(s);
  if (!m) {
    const dash = /^(\s*(?:- )+)(.*)$/.exec(s);
    if (dash) return [{ kind: 'mark', text: dash[1]! }, value(dash[2]!)];
    return [{ kind: 'plain', text: s }];
  }
  const out: Token[] = [];
  if (m[1]) out.push({ kind: 'mark', text: m[1] });
  out.push({ kind: 'key', text: m[2]! }, { kind: 'mark', text: m[3]! });
  if (m[4]) out.push(value(m[4]));
  return out;
}

function value(text: string): Token {
  const v = text.trim();
  if (/^(-?\d+(\.\d+)?|true|false|null|\{\}|\[\])$/.test(v)) return { kind: 'number', text };
  return { kind: /^[|>]-?$/.test(v) ? 'mark' : 'text', text };
}

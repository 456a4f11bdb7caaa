// Preact, hooks, signals and htm. All other modules import these libraries from here.
import { h, render } from "../../vendor/preact/preact.js";
import { useEffect, useId, useMemo, useRef, useState } from "../../vendor/preact/hooks.js";
import { computed, effect, signal } from "../../vendor/signals/signals.js";
import htm from "../../vendor/htm/htm.js";

export const html = htm.bind(h);
export { computed, effect, render, signal, useEffect, useId, useMemo, useRef, useState };

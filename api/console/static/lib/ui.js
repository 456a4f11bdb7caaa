// The one place that names the libraries: everything else imports from here.
import { h, render, Fragment, createRef } from "../vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId } from "../vendor/preact-hooks.js";
import { signal, computed, effect, batch, useSignal, useComputed } from "../vendor/signals.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export {
  h, render, Fragment, createRef,
  useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId,
  signal, computed, effect, batch, useSignal, useComputed,
};

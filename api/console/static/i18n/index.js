// Looks up every text of the console. A text is a pair: [English, Chinese].
import access from "./access.js";
import accounts from "./accounts.js";
import agent from "./agent.js";
import albums from "./albums.js";
import audit from "./audit.js";
import codes from "./codes.js";
import common from "./common.js";
import gallery from "./gallery.js";
import jobs from "./jobs.js";
import keys from "./keys.js";
import playground from "./playground.js";
import system from "./system.js";
import usage from "./usage.js";
import users from "./users.js";
import webhooks from "./webhooks.js";

const TEXTS = { ...access, ...accounts, ...agent, ...albums, ...audit, ...codes, ...common, ...gallery, ...jobs, ...keys, ...playground, ...system, ...usage, ...users, ...webhooks };

// The text of a key in English or, for "zh", in Chinese; undefined for an unknown key.
export const lookup = (key, language) => TEXTS[key]?.[language === "zh" ? 1 : 0];

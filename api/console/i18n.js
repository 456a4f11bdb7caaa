export default {
  "action.again": ["Again", "再来一次"],
  "action.back": ["Back", "返回"],
  "action.cancel": ["Cancel", "取消"],
  "action.close": ["Close", "关闭"],
  "action.copy": ["Copy", "复制"],
  "action.delete": ["Delete", "删除"],
  "action.download": ["Download", "下载"],
  "action.retry": ["Retry", "重试"],
  "action.save": ["Save", "保存"],
  "action.sign_out": ["Sign out", "退出登录"],
  "action.try_again": ["Try again", "重试"],

  "copy.done": ["Copied", "已复制"],
  "copy.failed": ["The browser did not allow copying.", "浏览器不允许复制。"],

  "error.status": ["The server answered with status {status}.", "服务器返回状态 {status}。"],
  "error.unreachable": ["The server does not answer. Check the connection and try again.", "服务器没有响应，请检查网络后重试。"],

  "live.lost": ["Connection lost. Trying again…", "连接已断开，正在重连…"],

  "nav.gallery": ["Gallery", "作品库"],
  "nav.group_admin": ["Administration", "管理"],
  "nav.group_account": ["Account", "账户"],
  "nav.job": ["Job", "任务详情"],
  "nav.jobs": ["Jobs", "任务"],
  "nav.label": ["Main menu", "主菜单"],
  "nav.menu": ["Menu", "菜单"],
  "nav.playground": ["Playground", "创作"],
  "nav.quick": ["Quick menu", "快捷菜单"],
  "nav.skip": ["Skip to content", "跳到正文"],

  "page.forbidden": ["Not for this key", "此密钥无权访问"],
  "page.forbidden_text": ["This page needs an administrator's key.", "此页面需要管理员密钥。"],
  "page.home": ["Go to the playground", "前往创作页"],
  "page.unknown": ["There is no such page", "没有这个页面"],

  "role.admin": ["Administrator", "管理员"],
  "role.member": ["Member", "成员"],
  "role.viewer": ["Viewer", "只读成员"],

  "signin.action": ["Sign in", "登录"],
  "signin.hint": ["Made by an administrator, or printed when the platform starts.", "由管理员创建，或在平台启动时显示。"],
  "signin.key": ["API key", "API 密钥"],
  "signin.lead": ["Pictures and videos from your own accounts.", "用您自己的账号生成图片和视频。"],
  "signin.title": ["Sign in to Dreamery", "登录 Dreamery"],

  "state.loading": ["Loading…", "加载中…"],

  "status.cancelled": ["Cancelled", "已取消"],
  "status.cancelling": ["Cancelling", "取消中"],
  "status.completed": ["Completed", "已完成"],
  "status.failed": ["Failed", "失败"],
  "status.in_progress": ["In progress", "进行中"],
  "status.queued": ["Queued", "排队中"],

  "theme.auto": ["as the system", "跟随系统"],
  "theme.dark": ["dark", "深色"],
  "theme.light": ["light", "浅色"],
  "theme.now": ["Theme: {theme}", "主题：{theme}"],

  "unit.h_min": ["{h} h {m} min", "{h} 小时 {m} 分"],
  "unit.min_s": ["{m} min {s} s", "{m} 分 {s} 秒"],
  "unit.s": ["{n} s", "{n} 秒"],
};

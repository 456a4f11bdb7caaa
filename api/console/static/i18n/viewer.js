// Texts of the full-screen viewer and of comparing two pictures: "area.name": [English, Chinese].
export default {
  "compare.choose": ["Compare with another picture", "与其他图片对比"],
  "compare.divider": ["Divider: how much of the first picture is shown, in percent", "分隔线：第一张图片显示的百分比"],
  "compare.mode": ["View", "显示方式"],
  "compare.sides": ["Side by side", "并排"],
  "compare.slider": ["Slider", "滑块"],
  "compare.swap": ["Swap pictures", "交换图片"],
  "compare.title": ["Compare", "对比"],
  "compare.with": ["Compare with picture {n}: {title}", "与第 {n} 张图片对比：{title}"],
  "compare.zoom_in": ["Zoom in", "放大"],
  "compare.zoom_out": ["Zoom out", "缩小"],

  "viewer.close_panel": ["Close parameters", "关闭参数"],
  "viewer.gone": ["This result no longer exists.", "该作品已不存在。"],
  "viewer.not_loaded": ["The picture cannot be loaded.", "图片无法加载。"],
  "viewer.open": ["Open full screen", "全屏查看"],
  "viewer.position": ["{n} of {total}: {title}", "第 {n} 项，共 {total} 项：{title}"],
  "viewer.select": ["Select", "选择"],
  "viewer.show": ["Show {n}", "显示第 {n} 项"],
  "viewer.strip": ["All results of this list", "此列表的所有作品"],
  "viewer.title": ["Viewer", "作品查看器"],
  "viewer.zoom": ["Zoom", "缩放"],
};
